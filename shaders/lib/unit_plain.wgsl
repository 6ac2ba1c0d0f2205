// What all plain types share: a unit's product is that of its decoded numbers.
#import vecs

alias Floats = Vecs;

fn unit_floats(u: Unit) -> Floats {
    return unit_vecs(u);
}

fn floats_dot(u: Floats, x: Vecs, sums: vec2<f32>) -> f32 {
    return vecs_dot(u, x);
}

fn unit_dot(u: Unit, x: Vecs, sums: vec2<f32>) -> f32 {
    return vecs_dot(unit_vecs(u), x);
}

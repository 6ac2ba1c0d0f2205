// What all plain types share: a unit's product is that of its decoded numbers.
#import vecs

fn unit_dot(u: Unit, x: Vecs, sums: vec2<f32>) -> f32 {
    return vecs_dot(unit_vecs(u), x);
}

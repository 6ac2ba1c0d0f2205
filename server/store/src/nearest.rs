//! The names that are nearest to one that nothing has.

/// Edits between two texts, counted up to `most`.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most || a.len() > 256 || b.len() > 256 {
        return most + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = if x == y { corner } else { 1 + corner.min(row[j]).min(row[j + 1]) };
            corner = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// At most three names that are a few edits away, or that hold the wanted one.
pub(crate) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let bare = wanted.strip_suffix(":latest").unwrap_or(wanted);
    let most = 1 + bare.chars().count() / 4;
    let score = |name: &str| {
        let name = name.to_lowercase();
        let short = name.strip_suffix(":latest").unwrap_or(&name);
        let last = short.rsplit('/').next().unwrap_or(short);
        let model = last.split(':').next().unwrap_or(last);
        let edits = [short, last, model].iter().map(|n| distance(bare, n, most)).min().unwrap_or(most + 1);
        let holds = bare.chars().count() >= 3 && short.contains(bare);
        (edits <= most || holds).then_some(edits.min(most))
    };
    let mut found: Vec<(usize, String)> = known.filter_map(|n| Some((score(n)?, n.to_owned()))).collect();
    found.sort();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

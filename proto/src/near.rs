//! The word that was meant where another was typed.

/// From this likeness on a word is taken for another one (Jaro and Winkler: 1 is
/// the same, 0 nothing in common).
const ALIKE: f64 = 0.8;

/// The one of `known` that is most like `typed`, if one is; one that has it as a
/// part is the same to us.
pub fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |known: &str| {
        if typed.len() > 2 && known.contains(typed) {
            return 1.0;
        }
        strsim::jaro_winkler(known, typed)
    };
    let near = known.map(|known| (likeness(known), known));
    let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0));
    nearest
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .map(|(_, known)| known)
}

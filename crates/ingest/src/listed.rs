//! Names in errors: few enough to read.

/// Names that are shown.
const SHOWN: usize = 20;

/// The first of these names, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// How many classes these are.
pub(crate) fn counted(classes: &[String]) -> String {
    match classes.len() {
        1 => "1 class".to_owned(),
        n => format!("{n} classes"),
    }
}

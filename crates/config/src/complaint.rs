//! Problems of config keys, before it is known where the keys are set.

/// A rule that a config breaks.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// The keys involved; the one on the highest layer is shown.
    pub(crate) keys: Vec<String>,
    /// The part of the key that is underlined.
    pub(crate) part: Part,
    pub(crate) message: String,
    /// Text after the underline.
    pub(crate) label: String,
    pub(crate) help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
}

impl Complaint {
    /// A value that is impossible.
    pub(crate) fn value(key: &str, message: impl Into<String>) -> Self {
        let (message, label) = (message.into(), String::new());
        Self { keys: vec![key.to_owned()], part: Part::Value, message, label, help: None }
    }

    /// A key that should not be there.
    pub(crate) fn key(key: &str, message: impl Into<String>) -> Self {
        Self { part: Part::Key, ..Self::value(key, message) }
    }

    /// Another key that is part of the contradiction.
    pub(crate) fn and(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }

    /// A name that is not one of `allowed`; offers the nearest.
    pub(crate) fn unknown_name(key: &str, name: &str, allowed: &[&str]) -> Self {
        Self::value(key, format!("unknown {key} \"{name}\"")).suggest(name, allowed)
    }

    /// What serde says about the key at `path`.
    pub(crate) fn from_serde(path: &str, message: &str) -> Self {
        let names = in_backticks(message);
        let name = names.first().copied().unwrap_or("");
        let allowed = names.get(1..).unwrap_or(&[]);
        if message.starts_with("unknown field") {
            return Self::key(path, format!("unknown key `{path}`")).suggest(name, allowed);
        }
        if message.starts_with("unknown variant") {
            return Self::unknown_name(path, name, allowed);
        }
        if message.starts_with("missing field") {
            let key = if path == "." { name.to_owned() } else { format!("{path}.{name}") };
            let help = "each key must be set, here or in a file that this one extends; \
                        configs/pretrain/base.toml explains them all";
            let help = Some(help.to_owned());
            return Self { help, ..Self::key(path, format!("missing key `{key}`")) };
        }
        Self::value(path, format!("{path}: {}", in_plain_words(message)))
    }

    fn suggest(mut self, name: &str, allowed: &[&str]) -> Self {
        // Below this similarity a suggestion is more often wrong than right.
        let score = |candidate: &&str| strsim::normalized_damerau_levenshtein(name, candidate);
        let close = allowed.iter().copied().filter(|candidate| score(candidate) >= 0.5);
        if let Some(nearest) = close.max_by(|a, b| score(a).total_cmp(&score(b))) {
            self.label = format!("did you mean `{nearest}`?");
        }
        self.help = Some(format!("allowed: {}", allowed.join(", ")));
        self
    }
}

fn in_backticks(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Rust's names of types mean nothing to the author of a config.
fn in_plain_words(message: &str) -> String {
    let Some((got, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let expected = match expected {
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "f32" | "f64" => "a number",
        other => other,
    };
    format!("{got}, expected {expected}")
}

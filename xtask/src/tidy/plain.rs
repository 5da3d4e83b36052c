//! Words that this repository used in a sense of its own; STYLE.md says what to write instead.

use super::Problem;
use super::words::has_word;
use crate::tree::SourceFile;

/// This file quotes what it refuses.
const SELF: &str = "xtask/src/tidy/plain.rs";

/// What STYLE.md lists, each with its forms and what to write instead.
const PRIVATE: [(&[&str], &str); 14] = [
    (&["told", "tell", "tells"], "reported, given, printed, distinguished"),
    (&["alone"], "only"),
    (&["dear"], "costly"),
    (&["mend", "mends", "mended"], "repair, correct"),
    (&["anew"], "again"),
    (&["for ever"], "forever"),
    (&["as ever"], "as before"),
    (&["of before"], "earlier, before this step"),
    (&["at hand"], "available, ready, open"),
    (&["lent out"], "borrowed"),
    (&["go on", "goes on", "going on", "went on"], "continue"),
    (&["worked off"], "processed"),
    (&["of one's own"], "your own"),
    (&["recorded step", "recorded steps", "repeated step"], "captured step, replayed step"),
];

/// Problems of one file. Names joined by underscores are not words; history and golden files keep theirs.
pub(super) fn check(file: &SourceFile) -> Vec<Problem> {
    let prose = ["rs", "md", "py", "toml", "cu", "cuh", "sh"];
    if !prose.iter().any(|kind| file.has_extension(kind)) || is_exempt(&file.path) {
        return Vec::new();
    }
    let found = |(line_idx, line): (usize, &str)| {
        let lower = line.to_lowercase();
        let of_line = |(forms, instead): &(&[&str], &str)| {
            let word = forms.iter().find(|form| has_word(&lower, form))?;
            Some(Problem::in_line(file, line_idx, format!("`{word}` is not plain: {instead}")))
        };
        PRIVATE.iter().filter_map(of_line).collect::<Vec<_>>()
    };
    file.text().lines().enumerate().flat_map(found).collect()
}

fn is_exempt(path: &str) -> bool {
    path == SELF
        || path == "STYLE.md"
        || path == "CHANGELOG.md"
        || path.starts_with("docs/benchmarks")
        || path.split('/').any(|folder| folder == "golden")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&SourceFile::new(path, text)).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_private_word_is_found_with_what_to_write_instead() {
        for (forms, instead) in PRIVATE {
            for form in forms {
                let expected = [format!("a.rs:2: `{form}` is not plain: {instead}")];
                assert_eq!(found("a.rs", &format!("fn a() {{}}\n// It {form}, so.\n")), expected);
                assert_eq!(found("a.rs", &format!("\n\"{}\"", form.to_uppercase())), expected);
            }
        }
    }

    #[test]
    fn every_word_of_a_line_is_found() {
        let expected = [
            "docs/a.md:1: `told` is not plain: reported, given, printed, distinguished",
            "docs/a.md:1: `alone` is not plain: only",
        ];
        assert_eq!(found("docs/a.md", "Told by the seed alone."), expected);
    }

    #[test]
    fn names_and_longer_words_are_not_words() {
        for text in ["fn the_rest_is_left_alone()", "standalone", "atoll", "teller", "commendable"]
        {
            assert_eq!(found("a.rs", text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn text_of_every_kind_is_read_and_history_is_not() {
        for path in ["a.rs", "b.md", "c.py", "d.toml", "e.cu", "f.cuh", "g.sh"] {
            assert_eq!(found(path, "as ever").len(), 1, "{path}");
        }
        for path in
            ["a.bin", "STYLE.md", "CHANGELOG.md", "docs/benchmarks.md", "tests/golden/make.py"]
        {
            assert_eq!(found(path, "as ever").len(), 0, "{path}");
        }
    }

    #[test]
    fn the_style_guide_lists_every_word() {
        let files = tree::files(tree::root()).unwrap();
        let style = files.iter().find(|file| file.path == "STYLE.md").unwrap();
        for (forms, instead) in PRIVATE {
            let row = format!("| {} | {instead} |", forms.join(", "));
            assert!(style.text().lines().any(|line| line == row), "no `{row}` in STYLE.md");
        }
    }
}

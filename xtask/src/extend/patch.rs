//! Diffs in the text of a page, and files after them. A hunk goes where its lines are, wherever that is in the
//! file by now: they must be there once.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::tree::SourceFile;

/// A block of a page between ```` ```diff ```` and ```` ``` ````.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// Page and line of its start, for messages.
    pub(super) place: String,
    files: Vec<FilePatch>,
}

/// The part about one file.
#[derive(Debug, PartialEq, Eq)]
struct FilePatch {
    path: String,
    is_new: bool,
    hunks: Vec<Hunk>,
}

/// Lines before and after.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hunk {
    place: String,
    before: String,
    after: String,
}

impl Patch {
    /// The files that it changes, without those that it brings.
    pub(super) fn changed(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|file| !file.is_new).map(|file| file.path.as_str())
    }
}

/// Every diff of a page, as `diff -u` and `git diff` write them.
pub(super) fn patches(page: &str, text: &str) -> anyhow::Result<Vec<Patch>> {
    let mut patches: Vec<Patch> = Vec::new();
    let mut is_inside = false;
    let mut is_new = false;
    for (line_idx, line) in text.lines().enumerate() {
        let place = || format!("{page}:{}", line_idx + 1);
        match (is_inside, line) {
            (false, "```diff") => {
                is_inside = true;
                patches.push(Patch { place: place(), files: Vec::new() });
            }
            (true, "```") => is_inside = false,
            (true, line) => {
                let patch = patches.last_mut().context("a line of a diff comes after its start")?;
                read_line(patch, line, &mut is_new, place())?;
            }
            (false, _) => {}
        }
    }
    if is_inside {
        bail!("{page} ends inside a diff");
    }
    Ok(patches)
}

fn read_line(
    patch: &mut Patch,
    line: &str,
    is_new: &mut bool,
    place: String,
) -> anyhow::Result<()> {
    if let Some(path) = line.strip_prefix("--- ") {
        *is_new = path == "/dev/null";
        return Ok(());
    }
    if let Some(path) = line.strip_prefix("+++ ") {
        let path = path.strip_prefix("b/").with_context(|| format!("{place}: no `+++ b/PATH`"))?;
        patch.files.push(FilePatch { path: path.into(), is_new: *is_new, hunks: Vec::new() });
        return Ok(());
    }
    let file = patch.files.last_mut();
    if line.starts_with("@@ ") {
        let file = file.with_context(|| format!("{place}: no `+++ b/PATH` before"))?;
        file.hunks.push(Hunk { place, ..Hunk::default() });
        return Ok(());
    }
    // What git writes above the paths.
    if ["diff ", "index ", "new file "].iter().any(|start| line.starts_with(start)) {
        return Ok(());
    }
    let hunk = file.and_then(|file| file.hunks.last_mut());
    let hunk = hunk.with_context(|| format!("{place}: no `@@` before"))?;
    let push = |texts: &mut [&mut String], rest: &str| {
        texts.iter_mut().for_each(|text| text.push_str(&format!("{rest}\n")));
    };
    let Hunk { before, after, .. } = hunk;
    match line.chars().next() {
        // Editors take the blank off an empty line.
        None => push(&mut [before, after], ""),
        Some(' ') => push(&mut [before, after], &line[1..]),
        Some('-') => push(&mut [before], &line[1..]),
        Some('+') => push(&mut [after], &line[1..]),
        Some(_) => bail!("{place}: a line of a diff begins with a blank, `-` or `+`, got `{line}`"),
    }
    Ok(())
}

/// The files that the diffs make or change, with their texts after all of them.
pub(super) fn apply(
    files: &[SourceFile],
    patches: &[Patch],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut patched: BTreeMap<String, String> = BTreeMap::new();
    for file in patches.iter().flat_map(|patch| &patch.files) {
        let path = &file.path;
        let old = patched.get(path).map(String::as_str);
        let old = old.or_else(|| files.iter().find(|old| old.path == *path).map(SourceFile::text));
        let mut text = match (old, file.is_new) {
            (Some(old), false) => old.to_owned(),
            (None, true) => String::new(),
            (Some(_), true) => bail!("{path} is new to a diff, but it is there"),
            (None, false) => bail!("{path} is changed by a diff, but it is not there"),
        };
        for Hunk { place, before, after } in &file.hunks {
            text = match (file.is_new, starts(&text, before).as_slice()) {
                (true, _) => text + after,
                (false, [start]) => {
                    format!("{}{after}{}", &text[..*start], &text[start + before.len()..])
                }
                (false, found) => bail!(
                    "{place}: the lines that it changes must be once in {path}, they are {} times:\n{before}",
                    found.len()
                ),
            };
        }
        patched.insert(path.clone(), text);
    }
    Ok(patched)
}

/// Where these lines begin in a text.
fn starts(text: &str, lines: &str) -> Vec<usize> {
    let found = text.match_indices(lines).map(|(start, _)| start);
    found.filter(|start| *start == 0 || text[..*start].ends_with('\n')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Page
```diff
diff --git a/a.rs b/a.rs
index 1..2 100644
--- a/a.rs
+++ b/a.rs
@@ -7,2 +7,3 @@ fn main() {
 one

-two
+TWO
+three
```
```rust
+ no diff
```
";

    fn after(page: &str, text: &str) -> Result<String, String> {
        let files = [SourceFile::new("a.rs", text)];
        let all = patches("page.md", page).map_err(|error| error.to_string())?;
        let mut patched = apply(&files, &all).map_err(|error| error.to_string())?;
        patched.remove("a.rs").ok_or_else(|| "unchanged".to_owned())
    }

    #[test]
    fn a_hunk_goes_where_its_lines_are() {
        let text = "zero\none\n\ntwo\nfour\n";
        assert_eq!(after(PAGE, text), Ok("zero\none\n\nTWO\nthree\nfour\n".into()));
    }

    #[test]
    fn lines_that_are_not_there_once_are_named() {
        let expected = |n: usize| {
            Err(format!(
                "page.md:7: the lines that it changes must be once in a.rs, they are {n} times:\none\n\ntwo\n"
            ))
        };
        assert_eq!(after(PAGE, "one\n\nTWO\n"), expected(0));
        assert_eq!(after(PAGE, "someone\n\ntwo\n"), expected(0));
        assert_eq!(after(PAGE, &"one\n\ntwo\n".repeat(2)), expected(2));
    }

    #[test]
    fn a_new_file_must_be_new_and_an_old_one_old() {
        let new = "```diff\n--- /dev/null\n+++ b/a.rs\n@@ -0,0 +1,1 @@\n+mine\n```\n";
        let error = "a.rs is new to a diff, but it is there";
        assert_eq!(after(new, "one\n"), Err(error.into()));
        let all = patches("page.md", new).unwrap();
        assert_eq!(apply(&[], &all).unwrap()["a.rs"], "mine\n");
        assert_eq!((all[0].place.as_str(), all[0].changed().count()), ("page.md:1", 0));
        let all = patches("page.md", PAGE).unwrap();
        assert_eq!(all[0].changed().collect::<Vec<_>>(), ["a.rs"]);
        let error = apply(&[], &all).unwrap_err().to_string();
        assert_eq!(error, "a.rs is changed by a diff, but it is not there");
    }

    #[test]
    fn what_is_no_diff_is_refused() {
        for (page, expected) in [
            ("```diff\n", "page.md ends inside a diff"),
            ("```diff\n+a\n```\n", "page.md:2: no `@@` before"),
            ("```diff\n@@ -1 +1 @@\n```\n", "page.md:2: no `+++ b/PATH` before"),
            ("```diff\n+++ a.rs\n```\n", "page.md:2: no `+++ b/PATH`"),
            (
                "```diff\n+++ b/a.rs\n@@ -1 +1 @@\nsurprise\n```\n",
                "page.md:4: a line of a diff begins with a blank, `-` or `+`, got `surprise`",
            ),
        ] {
            assert_eq!(after(page, ""), Err(expected.into()));
        }
    }
}

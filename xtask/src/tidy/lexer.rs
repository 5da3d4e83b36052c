//! Just enough of Rust's syntax to separate code from comments and strings.

use std::ops::Range;

/// The text with the inside of comments, strings and character literals blanked; lines stay lines.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Where the comment, string or character that begins at `at` ends; `at` itself if none does.
fn token_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1);
    match chars[at] {
        '/' if next == Some(&'/') => find(chars, at, |rest| rest[0] == '\n'),
        '/' if next == Some(&'*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at),
        'r' if begins_word(chars, at) => raw_string_end(chars, at),
        'b' if next == Some(&'r') && begins_word(chars, at) => {
            match raw_string_end(chars, at + 1) {
                end if end == at + 1 => at,
                end => end,
            }
        }
        // A lifetime has no closing quote after one character.
        '\'' if next == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => quoted_end(chars, at),
        _ => at,
    }
}

fn begins_word(chars: &[char], at: usize) -> bool {
    !at.checked_sub(1).is_some_and(|before| is_word(chars[before]))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first position from `start` where `stop` holds, or the end.
fn find(chars: &[char], start: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (start..chars.len()).find(|at| stop(&chars[*at..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != chars[start] {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of `r"…"` or `r#"…"#`; `start` if it is neither.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let n_hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + n_hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', n_hashes)).collect();
    (find(chars, open + 1, |rest| rest.starts_with(&close)) + close.len()).min(chars.len())
}

/// The text with each item under `#[cfg(test)]` blanked; characters and lines keep their places.
pub(super) fn without_tests(text: &str) -> String {
    let mut kept: Vec<char> = text.chars().collect();
    for item in test_items(text) {
        kept[item].iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
    }
    kept.into_iter().collect()
}

/// The text of each item under `#[cfg(test)]`, one after the other.
pub(super) fn only_tests(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    test_items(text).into_iter().flat_map(|item| &chars[item]).collect()
}

/// Where the items under `#[cfg(test)]` are, in characters.
fn test_items(text: &str) -> Vec<Range<usize>> {
    let code: Vec<char> = code_only(text).chars().collect();
    let attribute: Vec<char> = "#[cfg(test)]".chars().collect();
    let mut items = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if !code[at..].starts_with(&attribute) {
            at += 1;
            continue;
        }
        let end = item_end(&code, at + attribute.len());
        items.push(at..end);
        at = end;
    }
    items
}

/// The string literal that begins at or after `at`, as it reads when the program runs; of escapes it knows those
/// that messages have.
pub(super) fn literal_after(text: &str, at: usize) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let start = (at..chars.len()).find(|at| chars[*at] == '"')?;
    let end = quoted_end(&chars, start);
    Some(unescaped(&chars[start + 1..end - 1].iter().collect::<String>()))
}

/// Text with the escapes of its strings resolved: continued lines, quotes, line ends.
pub(super) fn unescaped(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('\n')) => while chars.next_if(|c| c.is_whitespace()).is_some() {},
            ('\\', Some('n')) => read.push(chars.next().map_or(c, |_| '\n')),
            ('\\', Some(_)) => read.extend(chars.next()),
            _ => read.push(c),
        }
    }
    read
}

/// The end of the item that begins at `start`: of its body, its semicolon, or what holds it.
fn item_end(code: &[char], start: usize) -> usize {
    let mut at = start;
    while at < code.len() {
        match code[at] {
            '{' => return (closing(code, at) + 1).min(code.len()),
            ';' => return at + 1,
            '}' => return at,
            '(' | '[' => at = closing(code, at),
            _ => {}
        }
        at += 1;
    }
    code.len()
}

/// Where the bracket at `open` is closed; the end if it is not.
pub(super) fn closing(code: &[char], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.iter().enumerate().skip(open) {
        depth = depth_after(depth, *c);
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// How many brackets are open after `c`, if so many were before it.
pub(super) fn depth_after(depth: usize, c: char) -> usize {
    match c {
        '(' | '[' | '{' => depth + 1,
        ')' | ']' | '}' => depth.saturating_sub(1),
        _ => depth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"}\\\"{\", g)", "f(      , g)"),
            ("let r = r#\"a\"b\"#;", "let r =         ;"),
            ("r#type + for\"x\"", "r#type + for   "),
            ("let r = br#\"a\"b\"#;", "let r =          ;"),
            ("break + abr#\"x\"", "break + abr#   "),
            ("'{' 'a '\\'' b", "    'a      b"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("\"open", "     "),
        ] {
            assert_eq!(code_only(text), expected, "{text}");
        }
    }

    #[test]
    fn a_literal_is_read_as_the_program_reads_it() {
        let text = "x #[error(\n    \"a {b:?} \\\n     `c` \\\"d\\\"\\n\"\n)]";
        assert_eq!(literal_after(text, 4).as_deref(), Some("a {b:?} `c` \"d\"\n"));
        assert_eq!(literal_after("no string", 0), None);
    }

    #[test]
    fn tests_are_cut() {
        for (text, kept) in [
            ("a\n#[cfg(test)]\nmod tests {}", "a"),
            ("#[cfg(test)]\nmod tests { fn f() {} }\nb", "b"),
            ("#[cfg(test)]\nmod tests;\nb", "b"),
            ("#[cfg(test)]\nfn f(x: [u8; 2]) { c(\"}\") }\nb", "b"),
            ("enum E { A, #[cfg(test)] B }", "enum E { A, }"),
            ("\"#[cfg(test)]\" b", "\"#[cfg(test)]\" b"),
        ] {
            let got = without_tests(text);
            assert_eq!(got.split_whitespace().collect::<Vec<_>>().join(" "), kept, "{text}");
            assert_eq!(only_tests(text).is_empty(), got == text, "{text}");
            let places = |text: &str| (text.chars().count(), text.matches('\n').count());
            assert_eq!(places(&got), places(text), "{text}");
        }
    }
}

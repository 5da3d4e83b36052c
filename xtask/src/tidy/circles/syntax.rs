//! The paths in a file's code: what it imports, what it calls by a path, which modules it declares.

use std::collections::{BTreeMap, BTreeSet};

use super::super::lexer;

/// What of a file matters to arrows between files; code under `#[cfg(test)]` is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// The path behind each name that a `use` brings in, re-exports among them.
    pub(super) imports: BTreeMap<String, Vec<String>>,
    /// Each path that the file needs: of its imports, its globs (which end in `*`) and its expressions.
    pub(super) needed: BTreeSet<Vec<String>>,
    /// Modules declared for tests only.
    pub(super) test_modules: BTreeSet<String>,
}

impl Paths {
    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Self {
        let mut parser = Parser { tokens: tokens(&lexer::code_only(text)), ..Parser::default() };
        while parser.at < parser.tokens.len() {
            parser.step();
        }
        parser.finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Separator,
    Sign(char),
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }
}

fn tokens(code: &str) -> Vec<Token> {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let n_word = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
        let n_bytes = if n_word > 0 {
            tokens.push(Token::Word(rest[..n_word].into()));
            n_word
        } else if rest.starts_with("::") {
            tokens.push(Token::Separator);
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[n_bytes..];
    }
    tokens
}

#[derive(Debug, Default)]
struct Parser {
    tokens: Vec<Token>,
    at: usize,
    paths: Paths,
    /// Names of `pub use`, which the file itself need not use.
    reexported: BTreeSet<String>,
    /// Words outside of `use` and `mod` that begin a path or stand for themselves.
    words: BTreeSet<String>,
    /// Open braces, and which of them open a module inside this file.
    depth: usize,
    inline_modules: Vec<usize>,
}

impl Parser {
    fn sign(&self, at: usize, sign: char) -> bool {
        self.tokens.get(at) == Some(&Token::Sign(sign))
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Reads on by an item or a token.
    fn step(&mut self) {
        if self.is_test_attribute(self.at) {
            return self.skip_test_item();
        }
        match self.tokens[self.at].clone() {
            Token::Word(word) if word == "use" => self.use_item(),
            Token::Word(word) if word == "mod" => self.mod_item(),
            Token::Word(_) => self.path(),
            Token::Sign('{') => {
                self.depth += 1;
                self.at += 1;
            }
            Token::Sign('}') => {
                self.depth = self.depth.saturating_sub(1);
                self.inline_modules.retain(|opened| *opened <= self.depth);
                self.at += 1;
            }
            _ => self.at += 1,
        }
    }

    /// Whether `#[cfg(test)]` or `#[cfg(all(test, …))]` begins here.
    fn is_test_attribute(&self, at: usize) -> bool {
        let opens =
            self.sign(at, '#') && self.sign(at + 1, '[') && self.word(at + 2) == Some("cfg");
        let all = if self.word(at + 4) == Some("all") { 2 } else { 0 };
        opens && self.word(at + 4 + all) == Some("test") && !self.sign(at + 5 + all, '=')
    }

    /// Goes after the attribute and the item that it is about.
    fn skip_test_item(&mut self) {
        while self.sign(self.at, '#') {
            self.skip_brackets(self.at + 1);
        }
        while self.at < self.tokens.len() {
            if self.word(self.at) == Some("mod") && self.sign(self.at + 2, ';') {
                let name = self.word(self.at + 1).map(String::from);
                self.paths.test_modules.extend(name);
            }
            match self.tokens[self.at] {
                Token::Sign(';') => {
                    self.at += 1;
                    return;
                }
                Token::Sign('{') => return self.skip_brackets(self.at),
                Token::Sign('(' | '[') => self.skip_brackets(self.at),
                // A field or a variant ends where what holds it ends, at the latest.
                Token::Sign('}') => return,
                _ => self.at += 1,
            }
        }
    }

    /// Goes after the bracket that closes the one at `open`.
    fn skip_brackets(&mut self, open: usize) {
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            match self.tokens[at] {
                Token::Sign('(' | '[' | '{') => depth += 1,
                Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                self.at = at + 1;
                return;
            }
        }
        self.at = self.tokens.len();
    }

    fn mod_item(&mut self) {
        if self.sign(self.at + 2, '{') {
            self.depth += 1;
            self.inline_modules.push(self.depth);
        }
        self.at += 3;
    }

    fn use_item(&mut self) {
        // `pub` or `pub(crate)` before it makes the names a part of this module.
        let before = |n: usize| self.at.checked_sub(n).map(|at| &self.tokens[at]);
        let public = before(1).is_some_and(|token| token.is_word("pub"))
            || (before(1) == Some(&Token::Sign(')'))
                && before(3) == Some(&Token::Sign('('))
                && before(4).is_some_and(|token| token.is_word("pub")));
        self.at += 1;
        if self.tokens.get(self.at) == Some(&Token::Separator) {
            self.at += 1;
        }
        let mut leaves = Vec::new();
        self.use_tree(&[], &mut leaves);
        for (name, path) in leaves {
            let path = self.outside_inline_modules(path);
            if name != "*" {
                if public {
                    self.reexported.insert(name.clone());
                }
                self.paths.imports.insert(name, path.clone());
            }
            if !public {
                self.paths.needed.insert(path);
            }
        }
    }

    /// The names of a tree of imports with their paths.
    fn use_tree(&mut self, prefix: &[String], leaves: &mut Vec<(String, Vec<String>)>) {
        let mut path = prefix.to_vec();
        loop {
            match self.tokens.get(self.at).cloned() {
                Some(Token::Word(word)) => path.push(word),
                Some(Token::Sign('*')) => path.push("*".into()),
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.sign(self.at, '}') {
                        self.use_tree(&path, leaves);
                        if self.sign(self.at, ',') {
                            self.at += 1;
                        } else if !self.sign(self.at, '}') {
                            return;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ => return,
            }
            self.at += 1;
            if self.tokens.get(self.at) == Some(&Token::Separator) {
                self.at += 1;
                continue;
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let mut name = path.last().cloned().unwrap_or_default();
            if self.word(self.at) == Some("as") {
                name = self.word(self.at + 1).unwrap_or_default().into();
                self.at += 2;
            }
            leaves.push((name, path));
            return;
        }
    }

    /// A path in an expression, a type or an attribute, or a single word.
    fn path(&mut self) {
        let names_a_member =
            self.at > 0 && matches!(self.tokens[self.at - 1], Token::Separator | Token::Sign('.'));
        let mut path = vec![self.word(self.at).unwrap_or_default().to_owned()];
        self.at += 1;
        while self.tokens.get(self.at) == Some(&Token::Separator) {
            let Some(word) = self.word(self.at + 1) else { break };
            path.push(word.into());
            self.at += 2;
        }
        if names_a_member {
            return;
        }
        self.words.insert(path[0].clone());
        if path.len() > 1 {
            let path = self.outside_inline_modules(path);
            self.paths.needed.insert(path);
        }
    }

    /// The path as it reads outside of the modules that stand in this file.
    fn outside_inline_modules(&self, mut path: Vec<String>) -> Vec<String> {
        let n_supers = path.iter().take_while(|word| *word == "super").count();
        let n_inside = n_supers.min(self.inline_modules.len());
        if n_inside > 0 {
            path.drain(..n_inside);
            if n_inside == n_supers {
                path.insert(0, "self".into());
            }
        }
        path
    }

    fn finish(mut self) -> Paths {
        for name in self.reexported.intersection(&self.words) {
            self.paths.needed.extend(self.paths.imports.get(name).cloned());
        }
        self.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(text: &str) -> Vec<String> {
        Paths::parse(text).needed.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn a_tree_of_imports_is_its_leaves() {
        let text = "use crate::a::{self, B, c::{D as E, *}};\nuse super::f;";
        let expected = ["crate::a", "crate::a::B", "crate::a::c::*", "crate::a::c::D", "super::f"];
        assert_eq!(needed(text), expected);
        let imports = Paths::parse(text).imports;
        let names: Vec<_> =
            imports.iter().map(|(n, path)| format!("{n}={}", path.join("::"))).collect();
        assert_eq!(names, ["B=crate::a::B", "E=crate::a::c::D", "a=crate::a", "f=super::f"]);
    }

    #[test]
    fn paths_in_code_count_and_those_in_comments_strings_and_visibilities_do_not() {
        let text = "/// See [`crate::doc::X`].\npub(crate) fn f(x: &crate::a::X) -> b::Y {\n\
                    let s = \"crate::s::f\"; x.c::<u8>(); $crate::m::g(x) // crate::n::f\n}";
        assert_eq!(needed(text), ["b::Y", "crate::a::X", "crate::m::g"]);
    }

    #[test]
    fn a_re_export_counts_where_the_file_uses_the_name_itself() {
        let public = "pub(crate) use self::a::A;\n";
        assert_eq!(needed(public), Vec::<String>::new());
        assert_eq!(needed(&format!("{public}fn f(x: &T) {{ x.A(); T::A(x) }}")), ["T::A"]);
        assert_eq!(needed(&format!("{public}fn f(x: A) {{}}")), ["self::a::A"]);
    }

    #[test]
    fn test_code_does_not_count() {
        let text = "#[cfg(test)]\nmod checks;\n#[cfg(all(test, unix))]\nuse crate::a::{A, B};\n\
                    #[cfg(test)]\n#[derive(Debug)]\nfn f(x: [u8; 2]) { crate::b::f() }\n\
                    #[cfg(any(test, unix))]\nfn g() { crate::c::f() }\n\
                    #[cfg(test)]\nmod tests { use crate::d::D; }\nfn h() { crate::e::f() }";
        assert_eq!(needed(text), ["crate::c::f", "crate::e::f"]);
        let test_modules = Paths::parse(text).test_modules;
        assert_eq!(test_modules, BTreeSet::from(["checks".to_owned()]));
    }

    #[test]
    fn super_in_a_module_of_the_file_is_the_file() {
        let text = "mod inner { use super::A; fn f() { super::super::b::g() } }\nuse super::C;";
        assert_eq!(needed(text), ["self::A", "super::C", "super::b::g"]);
    }
}

//! Which paths of its own crate a source file names, in `use` declarations and anywhere else in its code.

use proc_macro2::{Delimiter, Group, LexError, Spacing, TokenStream, TokenTree};
use std::collections::HashMap;

/// A path that the code names, from the crate's root: `super::ledger::Claim` in `limits::scope` is
/// `["limits", "ledger", "Claim"]`. A glob import ends at the module whose names it takes.
#[derive(Debug, PartialEq)]
pub struct Mention {
    pub path: Vec<String>,
    pub line: usize,
}

/// All paths in `text`, the source of the module `module`. Comments, docs and strings name nothing.
pub fn mentions(module: &[&str], text: &str) -> Result<Vec<Mention>, LexError> {
    let module = module.iter().map(ToString::to_string).collect();
    let mut reader = Reader { module, names: HashMap::new(), found: Vec::new() };
    reader.read_module(text.parse()?);
    Ok(reader.found)
}

struct Reader {
    /// Where the reader is: the file's module, or one written inside it.
    module: Vec<String>,
    /// What a bare first segment stands for here: child modules and imported names.
    names: HashMap<String, Vec<String>>,
    found: Vec<Mention>,
}

impl Reader {
    fn read_module(&mut self, code: TokenStream) {
        let tokens: Vec<TokenTree> = code.into_iter().collect();
        for pair in tokens.windows(2) {
            if let (Some("mod"), Some(child)) = (word(&pair[0]).as_deref(), word(&pair[1])) {
                let path = [&self.module[..], std::slice::from_ref(&child)].concat();
                self.names.insert(child, path);
            }
        }
        self.read(&tokens);
    }

    fn read(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            if let Some((name, body)) = inline_module(&tokens[at..]) {
                self.read_inline_module(name, body);
                at += 3;
            } else if let Some(word) = word(&tokens[at]) {
                let import = word == "use";
                at = self.read_path(None, tokens, at + usize::from(import), import);
            } else if let TokenTree::Group(group) = &tokens[at] {
                self.read(&Vec::from_iter(group.stream()));
                at += 1;
            } else if is_path_separator(&tokens[at..]) {
                // What follows `::` is never the first segment: `<T as Trait>::name`, `::std`.
                at += 3;
            } else {
                at += 1;
            }
        }
    }

    fn read_inline_module(&mut self, name: String, body: &Group) {
        // The names of the outer module stay: `use super::*` is common in there.
        let outer = self.names.clone();
        self.module.push(name);
        self.read_module(body.stream());
        self.module.pop();
        self.names = outer;
    }

    /// Reads the path, or the tree of paths, that begins at `at` below `prefix`; returns where it ends.
    fn read_path(
        &mut self,
        prefix: Option<Vec<String>>,
        tokens: &[TokenTree],
        at: usize,
        import: bool,
    ) -> usize {
        let Some(segment) = tokens.get(at).and_then(word) else {
            return at;
        };
        let single = prefix.is_none() && !is_path_separator(&tokens[at + 1..]);
        let path = match prefix {
            Some(path) => Some(extended(path, &segment)),
            None => self.first_segment(&segment),
        };
        let line = tokens[at].span().start().line;
        let after = at + 1;
        if !is_path_separator(&tokens[after..]) {
            // A single word is a variable, a keyword or the name of a declaration.
            if let Some(path) = path.filter(|_| import || !single) {
                self.end_path(path, &tokens[after..], import, line);
            }
            return after;
        }
        let Some(path) = path else {
            return after_foreign_path(tokens, after);
        };
        match tokens.get(after + 2) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let branches = Vec::from_iter(group.stream());
                for branch in branches.split(|token| is_punct(token, ',')) {
                    match branch.first() {
                        Some(star) if is_punct(star, '*') => self.mention(path.clone(), line),
                        _ => drop(self.read_path(Some(path.clone()), branch, 0, import)),
                    }
                }
                after + 3
            }
            Some(next) if word(next).is_some() => self.read_path(Some(path), tokens, after + 2, import),
            // A glob, or the generic arguments of what the path names.
            _ => {
                self.mention(path, line);
                after + 2
            }
        }
    }

    /// What the first segment stands for; none if that is another crate's or a local name.
    fn first_segment(&self, segment: &str) -> Option<Vec<String>> {
        match segment {
            "crate" => Some(Vec::new()),
            "self" | "super" => Some(extended(self.module.clone(), segment)),
            name => self.names.get(name).cloned(),
        }
    }

    /// A path has come to its end. An import also gives its last name, or the one after `as`, to this module.
    fn end_path(&mut self, path: Vec<String>, rest: &[TokenTree], import: bool, line: usize) {
        if import {
            let renamed = rest.first().and_then(word).is_some_and(|word| word == "as");
            let name = if renamed { rest.get(1).and_then(word) } else { path.last().cloned() };
            self.names.extend(name.map(|name| (name, path.clone())));
        }
        self.mention(path, line);
    }

    fn mention(&mut self, path: Vec<String>, line: usize) {
        self.found.push(Mention { path, line });
    }
}

fn extended(mut path: Vec<String>, segment: &str) -> Vec<String> {
    match segment {
        "self" => {}
        "super" => drop(path.pop()),
        name => path.push(name.to_owned()),
    }
    path
}

/// Where a path of another crate ends, whose segments may have any name.
fn after_foreign_path(tokens: &[TokenTree], mut at: usize) -> usize {
    while is_path_separator(&tokens[at..]) && tokens.get(at + 2).and_then(word).is_some() {
        at += 3;
    }
    at
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(one), other, ..]
        if one.as_char() == ':' && one.spacing() == Spacing::Joint && is_punct(other, ':'))
}

/// `mod name { ... }` at the beginning of `tokens`.
fn inline_module(tokens: &[TokenTree]) -> Option<(String, &Group)> {
    match tokens {
        [keyword, name, TokenTree::Group(body), ..] if word(keyword)? == "mod" => Some((word(name)?, body)),
        _ => None,
    }
}

//! A Rust file as tokens with their lines, and which of them only tests see.

use std::ops::RangeInclusive;

use anyhow::Context as _;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// One token; groups are flattened, so their brackets are tokens too.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token as written; literals with their quotes.
    pub text: String,
    /// The lines it covers, from 1.
    pub lines: RangeInclusive<usize>,
}

/// A function and the lines from its `fn` to its closing brace.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// From `fn` to the closing brace.
    pub lines: RangeInclusive<usize>,
}

/// A parsed Rust file.
#[derive(Debug)]
pub struct Source {
    /// Relative to the repository's root.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// All tokens without comments and doc comments.
    pub tokens: Vec<Token>,
    /// All functions with a body.
    pub functions: Vec<Function>,
    /// Every path that a `use` brings in, written out in full, with its line.
    pub uses: Vec<(String, usize)>,
    test_lines: Vec<RangeInclusive<usize>>,
    test_modules: Vec<String>,
    is_test: bool,
}

impl Source {
    /// Parses a file.
    pub fn parse(path: &str, text: &str) -> anyhow::Result<Self> {
        let stream: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        let file: syn::File = syn::parse2(stream.clone()).with_context(|| format!("{path} does not parse"))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut found = Collector::default();
        found.visit_file(&file);
        let in_test_folder = path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples"));
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            functions: found.functions,
            uses: found.uses,
            test_lines: found.test_lines,
            test_modules: found.test_modules,
            is_test: in_test_folder || file.attrs.iter().any(is_cfg_test),
        })
    }

    /// Marks the files of modules that others declare under `#[cfg(test)]`.
    pub fn mark_test_modules(sources: &mut [Self]) {
        let bases: Vec<String> = sources
            .iter()
            .flat_map(|source| source.test_modules.iter().map(|name| format!("{}/{name}", source.module_folder())))
            .collect();
        for source in sources {
            let in_module =
                |base: &String| source.path == format!("{base}.rs") || source.path.starts_with(&format!("{base}/"));
            source.is_test |= bases.iter().any(in_module);
        }
    }

    /// True when only tests see that line.
    pub fn is_test(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// True when this file is a build script.
    pub fn is_build_script(&self) -> bool {
        self.path.ends_with("/build.rs")
    }

    /// How many lines in `lines` hold code: not blank, not comment.
    pub fn code_lines(&self, lines: &RangeInclusive<usize>) -> usize {
        let mut held = vec![false; lines.end() + 1 - lines.start()];
        for token in &self.tokens {
            for line in token.lines.clone().filter(|line| lines.contains(line)) {
                held[line - lines.start()] = true;
            }
        }
        held.into_iter().filter(|held| *held).count()
    }

    /// Where `pattern` (its tokens separated by blanks) stands in the code.
    pub fn find<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
        let wanted: Vec<&str> = pattern.split(' ').collect();
        self.tokens.windows(wanted.len()).filter_map(move |window| {
            let same = window.iter().zip(&wanted).all(|(token, text)| token.text == *text);
            same.then(|| *window[0].lines.start())
        })
    }

    /// Every attribute as (line, its tokens joined by blanks).
    pub fn attributes(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let bang = self.tokens.get(index + 1).is_some_and(|next| next.text == "!");
            let open = index + 1 + usize::from(bang);
            if token.text == "#" && self.tokens.get(open).is_some_and(|next| next.text == "[") {
                found.push((*token.lines.start(), self.inside(open)));
            }
        }
        found
    }

    /// The tokens between the bracket at `open` and its partner, joined by blanks.
    fn inside(&self, open: usize) -> String {
        let (mut depth, mut words) = (0usize, Vec::new());
        for token in &self.tokens[open..] {
            match token.text.as_str() {
                "[" | "(" | "{" => depth += 1,
                "]" | ")" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            words.push(token.text.as_str());
        }
        words.get(1..).unwrap_or_default().join(" ")
    }

    /// The folder in which this file's child modules lie.
    fn module_folder(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
        }
    }
}

fn flatten(stream: TokenStream, out: &mut Vec<Token>) {
    for tree in stream {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(out, open, group.span_open().start().line, group.span_open().start().line);
                flatten(group.stream(), out);
                push(out, close, group.span_close().end().line, group.span_close().end().line);
                drop_doc_comment(out);
            }
            single => {
                let span = single.span();
                push(out, &single.to_string(), span.start().line, span.end().line);
            }
        }
    }
}

fn push(out: &mut Vec<Token>, text: &str, first: usize, last: usize) {
    out.push(Token { text: text.to_owned(), lines: first..=last });
}

/// Takes `# [ doc = "…" ]` and `# ! [ doc = "…" ]` away again: the parser makes them of comments.
fn drop_doc_comment(out: &mut Vec<Token>) {
    let tail: Vec<&str> = out.iter().rev().take(7).map(|token| token.text.as_str()).collect();
    let drop = match tail.as_slice() {
        ["]", _, "=", "doc", "[", "!", "#"] => 7,
        ["]", _, "=", "doc", "[", "#", ..] => 6,
        _ => 0,
    };
    out.truncate(out.len() - drop);
}

#[derive(Default)]
struct Collector {
    functions: Vec<Function>,
    uses: Vec<(String, usize)>,
    test_lines: Vec<RangeInclusive<usize>>,
    test_modules: Vec<String>,
}

impl Collector {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        self.functions.push(Function { name: signature.ident.to_string(), lines: first..=last });
    }

    fn use_tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") };
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.uses.push((join(&name.ident), name.ident.span().start().line)),
            syn::UseTree::Rename(name) => self.uses.push((join(&name.ident), name.ident.span().start().line)),
            syn::UseTree::Glob(glob) => self.uses.push((format!("{prefix}::*"), glob.span().start().line)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = attributes_of(item);
        if attributes.iter().any(is_cfg_test) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(module.ident.to_string());
            }
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if item.attrs.iter().any(is_cfg_test) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
        }
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree("", &item.tree);
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(it) => &it.attrs,
        syn::Item::Fn(it) => &it.attrs,
        syn::Item::Impl(it) => &it.attrs,
        syn::Item::Use(it) => &it.attrs,
        syn::Item::Struct(it) => &it.attrs,
        syn::Item::Const(it) => &it.attrs,
        syn::Item::Static(it) => &it.attrs,
        syn::Item::Macro(it) => &it.attrs,
        _ => &[],
    }
}

/// `cfg(test)`, also inside `all(…)`; not `cfg(not(test))`.
fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let mut words = Vec::new();
    flatten(list.tokens.clone(), &mut words);
    let has = |word: &str| words.iter().any(|token| token.text == word);
    list.path.is_ident("cfg") && has("test") && !has("not")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str, text: &str) -> Source {
        Source::parse(path, text).expect("parses")
    }

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        let text = "//! Head.\nfn f() {\n    // why\n\n    /* more\n    words */\n    g();\n}\n";
        let source = parse("a/src/x.rs", text);
        let function = &source.functions[0];
        assert_eq!((function.name.as_str(), function.lines.clone()), ("f", 2..=8));
        assert_eq!(source.code_lines(&function.lines), 3);
    }

    #[test]
    fn test_code_is_told_apart() {
        let text = "//! H.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(not(test))]\nfn c() {}\n";
        let source = parse("a/src/x.rs", text);
        let lines: Vec<bool> = [2, 5, 8].map(|line| source.is_test(line)).to_vec();
        assert_eq!(lines, [false, true, false]);
        assert!(parse("a/tests/x.rs", "fn a() {}").is_test(1));
    }

    #[test]
    fn files_of_test_modules_are_test_code() {
        let mut sources = vec![
            parse("a/src/queue.rs", "fn a() {}\n#[cfg(test)]\nmod faults;"),
            parse("a/src/queue/faults.rs", "fn a() {}"),
            parse("a/src/other.rs", "fn a() {}"),
        ];
        Source::mark_test_modules(&mut sources);
        assert_eq!(sources.iter().map(|source| source.is_test(1)).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn attributes_are_read_and_doc_comments_are_none() {
        let source = parse("a/src/x.rs", "//! H.\n/// Doc.\n#[allow(dead_code, reason = \"x\")]\nfn a() {}\n");
        assert_eq!(source.attributes(), [(3, "allow ( dead_code , reason = \"x\" )".to_owned())]);
    }

    #[test]
    fn uses_are_written_out() {
        let source = parse("a/src/x.rs", "use tokio::{task::{self, spawn_blocking}, spawn as go};");
        let uses: Vec<&str> = source.uses.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(uses, ["tokio::task::self", "tokio::task::spawn_blocking", "tokio::spawn"]);
    }
}

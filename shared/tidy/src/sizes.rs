//! How long files and functions may be.

use crate::{Finding, Source, Tree};

/// Lines of a file, whatever is on them.
pub const FILE_LINES: usize = 500;
/// Code lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES: usize = 70;
/// What is written by hand and read by people.
pub const EXTENSIONS: [&str; 7] = ["rs", "js", "mjs", "css", "html", "sh", "sql"];

/// Files longer than [`FILE_LINES`].
pub fn long_files(tree: &Tree) -> Vec<Finding> {
    tree.with_extension(&EXTENSIONS)
        .filter_map(|path| {
            let lines = tree.text(path)?.lines().count();
            (lines > FILE_LINES).then(|| Finding::of(path, format!("{lines} lines; split it (most: {FILE_LINES})")))
        })
        .collect()
}

/// Functions longer than [`FUNCTION_LINES`].
pub fn long_functions(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for function in &source.functions {
            let lines = source.code_lines(&function.lines);
            if lines > FUNCTION_LINES {
                let what = format!("fn {} has {lines} code lines; split it (most: {FUNCTION_LINES})", function.name);
                findings.push(Finding::at(&source.path, *function.lines.start(), what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_71_code_lines_is_found_and_one_of_70_is_not() {
        let source = |calls: usize| {
            let text = format!("//! H.\nfn f() {{\n{}}}\n", "    g(); // why\n\n".repeat(calls));
            [Source::parse("a/src/x.rs", &text).expect("parses")]
        };
        assert_eq!(long_functions(&source(68)), []);
        assert_eq!(long_functions(&source(69)).len(), 1);
    }
}

//! How deep a JSON text goes, found before anything is built from it.

/// True when objects and arrays lie more than `limit` inside one another. Looks at brackets outside
/// strings only; whether the text is JSON at all is for the parser to say.
pub fn is_deeper_than(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brackets_outside_strings_count() {
        assert!(!is_deeper_than(br#"{"a":"[[[[\"[[[["}"#, 1));
        assert!(!is_deeper_than(b"[[]]", 2));
        assert!(is_deeper_than(b"[[[]]]", 2));
    }
}

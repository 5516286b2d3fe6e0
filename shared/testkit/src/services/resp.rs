//! Redis' answers (RESP 2), as far as tests read them.
//!
//! The invariant: an answer that is cut short is an error, never a shorter answer.

use std::io::{Error, ErrorKind, Result};

/// The values of the first answer in `bytes`, arrays within arrays made flat, and nothing for nil.
pub(super) fn values(bytes: &[u8]) -> Result<Vec<String>> {
    let (mut reader, mut values) = (Reader { bytes }, Vec::new());
    reader.read_into(&mut values)?;
    Ok(values)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn read_into(&mut self, values: &mut Vec<String>) -> Result<()> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(malformed)?;
        match kind {
            "+" | ":" => values.push(rest.to_owned()),
            "-" => return Err(Error::other(rest.to_owned())),
            "$" => {
                // A negative length is nil.
                if let Ok(length) = number(rest)?.try_into() {
                    values.push(self.text(length)?);
                }
            }
            "*" => {
                for _ in 0..number(rest)? {
                    self.read_into(values)?;
                }
            }
            _ => return Err(malformed()),
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let end = self.bytes.windows(2).position(|pair| pair == b"\r\n").ok_or_else(malformed)?;
        self.text(end)
    }

    /// So many bytes and the line's end after them.
    fn text(&mut self, length: usize) -> Result<String> {
        let (text, rest) = self.bytes.split_at_checked(length).ok_or_else(malformed)?;
        self.bytes = rest.strip_prefix(b"\r\n").ok_or_else(malformed)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| malformed())
}

fn malformed() -> Error {
    ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_kind_become_values() {
        let nested = b"*3\r\n$1\r\n0\r\n*2\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n";
        assert_eq!(values(nested).expect("well formed"), ["0", "a\r\n", "-7"]);
        assert_eq!(values(b"+OK\r\n+OK\r\n").expect("well formed"), ["OK"]);
        assert_eq!(values(b"*-1\r\n").expect("well formed"), Vec::<String>::new());
        assert_eq!(values(b"-ERR no\r\n").expect_err("an error").to_string(), "ERR no");
        for short in [&b"*2\r\n+a\r\n"[..], b"$5\r\nabc\r\n", b"", b"+a"] {
            assert_eq!(values(short).expect_err("cut short").kind(), ErrorKind::InvalidData);
        }
    }
}

//! Escaping of text that a person reads: a name from the network must not move a terminal's cursor.

use std::fmt::{self, Write};

/// Shows `text` with control characters, ESC and bidirectional marks written as `\u{…}`.
///
/// ```
/// assert_eq!(hereabouts::escaped("a\u{1b}[2Jb").to_string(), r"a\u{1b}[2Jb");
/// assert_eq!(hereabouts::escaped("grüße").to_string(), "grüße");
/// ```
#[must_use]
pub fn escaped(text: &str) -> Escaped<'_> {
    Escaped(text)
}

/// Text that is displayed without anything that could act on a terminal; see [`escaped`].
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if acts_on_a_terminal(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Control characters, and what reorders or hides text: bidirectional marks, embeddings and
/// isolates (UAX #9), zero-width and line separators, the byte order mark, tag characters.
fn acts_on_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_gets_through() {
        for (text, shown) in [
            ("plain text", "plain text"),
            ("é日本語", "é日本語"),
            ("\u{1b}]0;x\u{7}", r"\u{1b}]0;x\u{7}"),
            ("a\nb", r"a\u{a}b"),
            ("\u{202e}txt.exe", r"\u{202e}txt.exe"),
            ("a\u{9b}b", r"a\u{9b}b"),
        ] {
            assert_eq!(escaped(text).to_string(), shown);
        }
    }
}

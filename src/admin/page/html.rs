//! HTML in the making. Only literals of the program go in as they are: whatever else comes, comes through
//! [`Html::text`].

use std::fmt::{self, Display, Write};

/// A piece of HTML.
#[derive(Debug, Default)]
pub(super) struct Html(String);

/// Appends literals as they are, and what stands in parentheses as text.
macro_rules! put {
    (@ $out:expr, $markup:literal) => { $out.raw($markup) };
    (@ $out:expr, ($text:expr)) => { $out.text(&$text) };
    ($out:expr; $($part:tt)*) => {{ $(put!(@ $out, $part);)* }};
}
pub(super) use put;

impl Html {
    /// Markup of the program's own.
    pub(super) fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Text, for between tags or for inside a quoted attribute. What could act on a reader, markup or the direction of
    /// writing, is made harmless.
    pub(super) fn text(&mut self, text: &(impl Display + ?Sized)) {
        // Writing to a string cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                hidden if is_hidden(hidden) => self.0.extend(hidden.escape_unicode()),
                plain => self.0.push(plain),
            }
        }
        Ok(())
    }
}

/// Control and direction characters, and those without a width.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_harmless_and_markup_stays() {
        let mut html = Html::default();
        put!(html; "<b title=\"" ("\"><script>'&\u{202e}\0") "\">" (7) "</b>");
        assert_eq!(
            html.into_string(),
            "<b title=\"&quot;&gt;&lt;script&gt;&#39;&amp;\\u{202e}\\u{0}\">7</b>"
        );
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place(text: String) {
            let mut html = Html::default();
            html.text(&text);
            let html = html.into_string();
            prop_assert!(!html.contains(['<', '>', '"', '\'']) && !html.chars().any(is_hidden));
        }
    }
}

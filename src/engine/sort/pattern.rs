//! Patterns of `SORT`: `weight_*`, `object_*->field`, `#`.

use bytes::Bytes;

use crate::command::args::c_text;

/// Whether the element has a place in `pattern`.
pub(super) fn has_place(pattern: &[u8]) -> bool {
    c_text(pattern).contains(&b'*')
}

/// What a pattern names for an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The element itself.
    Itself,
    /// The string of this key.
    Key(Bytes),
    /// A field of the hash of this key.
    Field(Bytes, Bytes),
    /// Nothing: the pattern has no place for the element.
    Nothing,
}

/// A pattern, which names something for each element.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Bytes,
}

impl Pattern {
    pub fn new(text: Bytes) -> Self {
        Self { text }
    }

    /// Whether it names keys.
    pub fn names_keys(&self) -> bool {
        has_place(&self.text)
    }

    /// What it names for `element`. Redis looks for the marks in the text as C
    /// sees it, up to a zero byte, and takes what stands behind them whole.
    pub fn name(&self, element: &[u8]) -> Named {
        let seen = c_text(&self.text);
        if seen == b"#" {
            return Named::Itself;
        }
        let Some(place) = seen.iter().position(|byte| *byte == b'*') else {
            return Named::Nothing;
        };
        let behind = &seen[place + 1..];
        let arrow = behind.windows(2).position(|two| two == b"->");
        let arrow = arrow
            .map(|at| place + 1 + at)
            .filter(|at| at + 2 < seen.len());
        let key_end = arrow.unwrap_or(self.text.len());
        let key = [&self.text[..place], element, &self.text[place + 1..key_end]].concat();
        let key = Bytes::from(key);
        match arrow {
            Some(at) => Named::Field(key, self.text.slice(at + 2..)),
            None => Named::Key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_keys_and_fields() {
        for (pattern, expected) in [
            ("#", Named::Itself),
            ("#\0x", Named::Itself),
            ("##", Named::Nothing),
            ("fixed", Named::Nothing),
            ("x\0*", Named::Nothing),
            ("w_*", Named::Key("w_5".into())),
            ("*", Named::Key("5".into())),
            ("a*b*", Named::Key("a5b*".into())),
            ("o*->f", Named::Field("o5".into(), "f".into())),
            ("o*x->f->g", Named::Field("o5x".into(), "f->g".into())),
            ("o->*", Named::Key("o->5".into())),
            ("o*->", Named::Key("o5->".into())),
            ("o*->\0", Named::Key("o5->\0".into())),
        ] {
            let pattern = Pattern::new(Bytes::from(pattern));
            let names_keys = matches!(expected, Named::Key(_) | Named::Field(..));
            assert_eq!(pattern.names_keys(), names_keys, "{pattern:?}");
            assert_eq!(pattern.name(b"5"), expected, "{pattern:?}");
        }
    }
}

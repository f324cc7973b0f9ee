//! Glob patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether upper and lower case of ASCII letters are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As `KEYS` and `SCAN` match.
    Sensitive,
    /// As `COMMAND LIST` matches.
    Insensitive,
}

/// What all that matches begins with, as far as the pattern says that plainly.
pub fn prefix(pattern: &[u8]) -> &[u8] {
    let literal = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..literal.unwrap_or(pattern.len())]
}

/// Whether `text` as a whole matches `pattern`.
///
/// Goes back only to the last `*`, so time is at most the product of the lengths.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        if p < pattern.len()
            && let Some(next) = match_one(&pattern[p..], text[t], case)
        {
            p += next;
            t += 1;
            continue;
        }
        // Let the last star swallow one byte more.
        let Some((after_star, from)) = star else {
            return false;
        };
        p = after_star;
        t = from + 1;
        star = Some((after_star, t));
    }
}

/// A pattern's literal beginning, without the backslashes in it, and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal<'a> {
    /// What every text that matches begins with.
    pub text: Vec<u8>,
    /// The pattern of what follows; empty if nothing may.
    pub rest: &'a [u8],
}

/// Divides `pattern` behind its literal beginning.
pub fn literal_prefix(pattern: &[u8]) -> Literal<'_> {
    let mut text = Vec::new();
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        match (byte, pattern.get(at + 1)) {
            (b'*' | b'?' | b'[', _) => break,
            (b'\\', Some(&escaped)) => {
                text.push(escaped);
                at += 2;
            }
            _ => {
                text.push(byte);
                at += 1;
            }
        }
    }
    let rest = &pattern[at..];
    Literal { text, rest }
}

/// Whether every `[` of `pattern` is closed, and something stands behind every `\`.
pub fn is_complete(pattern: &[u8]) -> bool {
    let mut is_class = false;
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'\\' if at + 1 == pattern.len() => return false,
            b'\\' => at += 1,
            b'[' => is_class = true,
            b']' => is_class = false,
            _ => {}
        }
        at += 1;
    }
    !is_class
}

/// Matches one byte against the first element of `pattern`, which is not
/// empty; the element's length if it matched.
fn match_one(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => match_class(pattern, byte, case),
        b'\\' if pattern.len() >= 2 => same(pattern[1], byte, case).then_some(2),
        other => same(other, byte, case).then_some(1),
    }
}

/// Matches a class; one that is not closed ends with the pattern, as in Redis.
fn match_class(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match &pattern[at.min(pattern.len())..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                let (first, last, byte) = match case {
                    Case::Sensitive => (*first, *last, byte),
                    Case::Insensitive => (
                        first.to_ascii_lowercase(),
                        last.to_ascii_lowercase(),
                        byte.to_ascii_lowercase(),
                    ),
                };
                found |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [single, ..] => {
                found |= same(*single, byte, case);
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

fn same(a: u8, b: u8, case: Case) -> bool {
    match case {
        Case::Sensitive => a == b,
        Case::Insensitive => a.eq_ignore_ascii_case(&b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a", "ha", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hxllo", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*a", "baa", true),
            ("**", "x", true),
            ("a\\", "a\\", true),
        ] {
            let got = matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive);
            assert_eq!(got, expected, "{pattern} {text}");
        }
        assert!(matches(b"GE[S-U]", b"get", Case::Insensitive));
        assert!(!matches(b"GET", b"get", Case::Sensitive));
    }

    #[test]
    fn a_pattern_is_divided_behind_its_literal_beginning() {
        let divided = |pattern: &'static str| {
            let found = literal_prefix(pattern.as_bytes());
            (String::from_utf8(found.text).unwrap(), found.rest)
        };
        assert_eq!(divided("user:*"), ("user:".into(), &b"*"[..]));
        assert_eq!(divided("a\\*b?c"), ("a*b".into(), &b"?c"[..]));
        assert_eq!(divided("plain"), ("plain".into(), &b""[..]));
        assert!(is_complete(b"a[b\\]c]*") && is_complete(b"]"));
        assert!(!is_complete(b"a[bc") && !is_complete(b"a\\"));
    }

    #[test]
    fn many_stars_take_bounded_time() {
        let pattern = b"a*".repeat(50);
        let text = b"a".repeat(5000);
        assert!(matches(&pattern, &text, Case::Sensitive));
        let pattern = [pattern, b"b".to_vec()].concat();
        assert!(!matches(&pattern, &text, Case::Sensitive));
    }
}

//! An ACL file: a line `user <name> <rule> ...` for each user, as Redis reads and writes it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::selector::Mistake;
use super::user::User;

/// What stands behind the mistakes of a file.
const NO_CHANGE: &str = "WARNING: ACL errors detected, no change to the previously active ACL \
                         rules was performed";

/// The users of a file called `path`, by name; all its mistakes, in Redis's words, if there is any.
pub fn parse_file(path: &str, text: &[u8]) -> Result<BTreeMap<Bytes, User>, String> {
    let mut users = BTreeMap::new();
    let mut mistakes = String::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Err(mistake) = parse_line(line, &mut users) {
            mistakes.push_str(&mistake.text(path, index + 1));
        }
    }
    if mistakes.is_empty() {
        return Ok(users);
    }
    mistakes.push_str(NO_CHANGE);
    Err(mistakes)
}

/// The lines of a file with these users.
pub fn write_file<'a>(users: impl Iterator<Item = (&'a str, &'a User)>) -> String {
    users
        .map(|(name, user)| format!("user {name} {}\n", user.line()))
        .collect()
}

/// A selector may come in several words: those from `(` to `)` become one. An error
/// with the word that opens one without end.
pub fn join_selectors(words: &[Bytes]) -> Result<Vec<Bytes>, Bytes> {
    let mut rules = Vec::new();
    let mut open: Option<(&Bytes, Vec<u8>)> = None;
    for word in words {
        match &mut open {
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
            }
            None if word.starts_with(b"(") => open = Some((word, word.to_vec())),
            None => rules.push(word.clone()),
        }
        if word.ends_with(b")")
            && let Some((_, selector)) = open.take()
        {
            rules.push(Bytes::from(selector));
        }
    }
    match open {
        Some((start, _)) => Err(start.clone()),
        None => Ok(rules),
    }
}

/// What is wrong with a line.
enum LineMistake {
    NotUser,
    Duplicate(Bytes),
    Unmatched,
    Rule(Bytes, Mistake),
}

impl LineMistake {
    fn text(&self, path: &str, line: usize) -> String {
        let shown = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::NotUser => {
                format!("{path}:{line} should start with user keyword followed by the username. ")
            }
            Self::Duplicate(name) => {
                format!(
                    "WARNING: Duplicate user '{}' found on line {line}. ",
                    shown(name)
                )
            }
            // Without a space behind it, as in Redis.
            Self::Unmatched => {
                format!("{path}:{line}: Unmatched parenthesis in selector definition.")
            }
            Self::Rule(rule, mistake @ Mistake::Unknown) => {
                let rule = shown(rule);
                format!("{path}:{line}: Error in applying operation '{rule}': {mistake}. ")
            }
            Self::Rule(_, mistake) => format!("{path}:{line}: {mistake}. "),
        }
    }
}

fn parse_line(line: &[u8], users: &mut BTreeMap<Bytes, User>) -> Result<(), LineMistake> {
    let words = line.split(|byte| *byte == b' ');
    let words: Vec<Bytes> = words.map(Bytes::copy_from_slice).collect();
    let [keyword, name, rules @ ..] = &words[..] else {
        return Err(LineMistake::NotUser);
    };
    if keyword != "user" {
        return Err(LineMistake::NotUser);
    }
    if users.contains_key(name) {
        return Err(LineMistake::Duplicate(name.clone()));
    }
    let rules = join_selectors(rules).map_err(|_| LineMistake::Unmatched)?;
    let rules = rules.iter().map(|rule| rule.slice_ref(rule.trim_ascii()));
    let mut user = User::default();
    let applied = user.apply(&rules.collect::<Vec<_>>());
    users.insert(name.clone(), user);
    applied.map_err(|(rule, mistake)| LineMistake::Rule(rule, mistake))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as Redis 7.0 gave them.
    #[test]
    fn all_mistakes_of_a_file_are_told_as_by_redis() {
        for (text, expected) in [
            (
                "# c\n\nuser default on nopass ~* &* +@all\nuser bob +foo\nbad line\nuser x on ~* %%\nuser\nuser bob on\n",
                "f:4: Error in applying operation '+foo': Unknown command or category name in ACL. \
                 f:5 should start with user keyword followed by the username. \
                 f:6: Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and \
                 does not have any effect. Try 'resetkeys' to start with an empty list of patterns. \
                 f:7 should start with user keyword followed by the username. \
                 WARNING: Duplicate user 'bob' found on line 8. ",
            ),
            ("user a b c\n", "f:1: Syntax error. "),
            (
                "user a (+get\n",
                "f:1: Unmatched parenthesis in selector definition.",
            ),
            (
                "  user a on   ~*\t+get  \nuser default off\n",
                "f:1: Syntax error. ",
            ),
            (
                "USER a on\n",
                "f:1 should start with user keyword followed by the username. ",
            ),
        ] {
            let mistakes = parse_file("f", text.as_bytes()).unwrap_err();
            assert_eq!(mistakes, format!("{expected}{NO_CHANGE}"), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = "user alice on >secret ~x* +@all\nuser bob (+get ~y) off\n";
        let users = parse_file("f", text.as_bytes()).unwrap();
        let named = users.iter();
        let named = named.map(|(name, user)| (std::str::from_utf8(name).unwrap(), user));
        let written = write_file(named);
        assert!(!written.contains("secret"), "{written}");
        assert_eq!(parse_file("f", written.as_bytes()).unwrap(), users);
    }
}

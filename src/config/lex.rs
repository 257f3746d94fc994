//! Text to directives: words, quotes, comments, inline blocks; no meaning.
//!
//! Follows OpenVPN's own reader character for character where a file that OpenVPN accepts is
//! concerned:
//!
//! ```text
//! "two words"   'as it is \'   back\ slash   # comment   ; comment   a#b "is one word each"
//! ```
//!
//! * `#` and `;` start a comment only where a word could start, even behind a backslash;
//! * inside double quotes and outside quotes a backslash may precede a space, `\` or `"` only;
//! * inside single quotes nothing is special;
//! * a quote in the middle of a bare word is an ordinary character;
//! * a line that is just `<name>` takes everything up to `</name>` as that directive's argument.
//!
//! Stricter in two places where OpenVPN would do something nobody means: a backslash at the end of
//! a line (it would put the line end into the word) and more than 15 arguments (it would drop the rest).

use core::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::problem::{Origin, Problems};

/// Words on one line at most, the directive's name included (MAX_PARMS).
const MAX_WORDS: usize = 16;

/// One directive as written.
#[derive(Clone)]
pub struct Line {
    /// Where it stands.
    pub origin: Origin,
    /// Its name, leading dashes removed.
    pub name: String,
    /// What follows the name; empty for an inline block.
    pub args: Vec<String>,
    /// The text of an inline block, lines ended by LF. May be a private key: wiped on drop.
    pub inline: Option<Zeroizing<String>>,
}

/// Shows no inline text, as that may be a key.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inline = self.inline.as_ref().map(|text| text.len());
        write!(
            f,
            "{}:{} {} {:?} {inline:?}",
            self.origin.file, self.origin.line, self.name, self.args
        )
    }
}

impl Line {
    /// The argument at `index`, counted from 0.
    pub fn arg(&self, index: usize) -> Option<&str> {
        self.args.get(index).map(String::as_str)
    }
}

/// Why a line is not a sequence of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexError {
    /// A double quote without its partner.
    OpenQuote,
    /// A single quote without its partner.
    OpenSingleQuote,
    /// A backslash before something that needs none, or at the end of the line.
    BadBackslash,
    /// More words than any directive takes.
    TooManyWords,
    /// A NUL or another control character, or bytes that are not UTF-8.
    BadCharacter,
}

impl fmt::Display for LexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenQuote => "a double quote (\") is opened but not closed on this line",
            Self::OpenSingleQuote => "a single quote (') is opened but not closed on this line",
            Self::BadBackslash => "a backslash may stand only before a space, a backslash or a double quote; write \\\\ for one",
            Self::TooManyWords => "more than 15 arguments; use quotes around an argument that contains spaces",
            Self::BadCharacter => "contains a control character or text that is not UTF-8",
        })
    }
}

/// What the scanner is in the middle of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Bare,
    Quoted,
    SingleQuoted,
}

/// Cuts one line into words. An empty result is an empty or comment line.
pub fn split(line: &str) -> Result<Vec<String>, LexError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut state = State::Between;
    let mut backslash = false;
    for c in line.chars() {
        if c == '\\' && !backslash && state != State::SingleQuoted {
            backslash = true;
            continue;
        }
        let escaped = core::mem::take(&mut backslash);
        let mut keep = false;
        let mut done = false;
        match state {
            State::Between if is_space(c) => {}
            State::Between if c == '#' || c == ';' => break,
            State::Between if c == '"' && !escaped => state = State::Quoted,
            State::Between if c == '\'' && !escaped => state = State::SingleQuoted,
            State::Between => {
                state = State::Bare;
                keep = true;
            }
            State::Bare => {
                done = is_space(c) && !escaped;
                keep = !done;
            }
            State::Quoted => {
                done = c == '"' && !escaped;
                keep = !done;
            }
            State::SingleQuoted => {
                done = c == '\'';
                keep = !done;
            }
        }
        if keep {
            if escaped && !(c == '\\' || c == '"' || is_space(c)) {
                return Err(LexError::BadBackslash);
            }
            if c.is_control() && c != '\t' || c == char::REPLACEMENT_CHARACTER {
                return Err(LexError::BadCharacter);
            }
            word.push(c);
        }
        if done {
            words.push(core::mem::take(&mut word));
            state = State::Between;
        }
    }
    match state {
        State::Quoted => return Err(LexError::OpenQuote),
        State::SingleQuoted => return Err(LexError::OpenSingleQuote),
        State::Bare if backslash => return Err(LexError::BadBackslash),
        State::Bare => words.push(word),
        State::Between if backslash => return Err(LexError::BadBackslash),
        State::Between => {}
    }
    if words.len() > MAX_WORDS { Err(LexError::TooManyWords) } else { Ok(words) }
}

/// C's `isspace` in the POSIX locale.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// All directives of one file. A line that cannot be read is reported and left out.
pub(super) fn lines(file: &Arc<str>, text: &str, problems: &mut Problems) -> Vec<Line> {
    lines_after(&Origin::new(file, 0), text, problems)
}

/// The same for text that follows the line `before`: what is inside a block.
pub(super) fn lines_after(before: &Origin, text: &str, problems: &mut Problems) -> Vec<Line> {
    let file = &before.file;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let mut numbered = (before.line + 1..).zip(text.lines());
    while let Some((number, line)) = numbered.next() {
        let origin = Origin::new(file, number);
        let mut words = match split(line) {
            Ok(words) => words.into_iter(),
            Err(error) => {
                problems.error(&origin, error.to_string());
                continue;
            }
        };
        let Some(first) = words.next() else { continue };
        let name = strip_dashes(&first).to_owned();
        let args: Vec<_> = words.collect();
        let tag = name.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        let Some(tag) = tag.filter(|_| args.is_empty()) else {
            found.push(Line { origin, name, args, inline: None });
            continue;
        };
        let close = format!("</{tag}>");
        let mut block = Zeroizing::new(String::with_capacity(text.len()));
        let closed = numbered.by_ref().any(|(_, line)| {
            let end = line.trim_start_matches(is_space).starts_with(&close);
            if !end {
                block.push_str(line);
                block.push('\n');
            }
            end
        });
        if !closed {
            problems.error(&origin, format!("the block <{tag}> has no closing line {close}"));
        }
        found.push(Line { origin, name: tag.to_owned(), args, inline: Some(block) });
    }
    found
}

/// Directives given as `--option argument…`; the words are taken as they are, the shell has done the quoting.
///
/// A first word without dashes is a configuration file. (OpenVPN allows that only for a single
/// argument; here further options may follow.)
pub(super) fn arguments(args: &[String], problems: &mut Problems) -> Vec<Line> {
    let file: Arc<str> = Arc::from(Origin::COMMAND_LINE);
    let origin = Origin::new(&file, 0);
    let mut found: Vec<Line> = Vec::new();
    for (index, word) in args.iter().enumerate() {
        let start = |name: &str, args| Line {
            origin: origin.clone(),
            name: name.to_owned(),
            args,
            inline: None,
        };
        if let Some(name) = word.strip_prefix("--") {
            found.push(start(name, Vec::new()));
        } else if index == 0 {
            found.push(start("config", vec![word.clone()]));
        } else if let Some(last) = found.last_mut() {
            last.args.push(word.clone());
        }
    }
    for line in &found {
        if line.args.len() >= MAX_WORDS {
            problems.error(&origin, format!("--{}: {}", line.name, LexError::TooManyWords));
        }
        if line.args.iter().any(|arg| arg.chars().any(char::is_control)) {
            problems.error(&origin, format!("--{}: {}", line.name, LexError::BadCharacter));
        }
    }
    found
}

/// `--name` in a file means `name`.
fn strip_dashes(word: &str) -> &str {
    word.strip_prefix("--").filter(|rest| !rest.is_empty()).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(
            words("server 10.8.0.0\t255.255.255.0\r"),
            ["server", "10.8.0.0", "255.255.255.0"]
        );
        assert_eq!(
            words(r#"push "route 10.0.0.0 255.0.0.0""#),
            ["push", "route 10.0.0.0 255.0.0.0"]
        );
        assert_eq!(words(r"push 'a \ b'"), ["push", r"a \ b"]);
        assert_eq!(words(r#"a "" b"#), ["a", "", "b"]);
        assert_eq!(words(r#""a""b"c"#), ["a", "b", "c"]);
        assert_eq!(words(r#"it's a"b"#), ["it's", "a\"b"]);
        assert_eq!(words(r#"c:\\key\ file "say \"x\"""#), [r"c:\key file", r#"say "x""#]);
    }

    #[test]
    fn comments() {
        for line in ["", "   ", "# x", ";x", "  ; \"open", r"\# x", "\u{c}"] {
            assert!(words(line).is_empty(), "{line:?}");
        }
        assert_eq!(words("verb 3 # loud"), ["verb", "3"]);
        assert_eq!(words("verb 3;4"), ["verb", "3;4"]);
        assert_eq!(words("a \"#b\" ;c"), ["a", "#b"]);
    }

    #[test]
    fn refusals() {
        assert_eq!(split(r#"push "route"#), Err(LexError::OpenQuote));
        assert_eq!(split("push 'route"), Err(LexError::OpenSingleQuote));
        assert_eq!(split(r"ca C:\keys\ca.crt"), Err(LexError::BadBackslash));
        assert_eq!(split(r"ca C:\"), Err(LexError::BadBackslash));
        assert_eq!(split("ca a\0b"), Err(LexError::BadCharacter));
        assert_eq!(split(&"x ".repeat(17)), Err(LexError::TooManyWords));
        assert_eq!(split(&"x ".repeat(16)).map(|w| w.len()), Ok(16));
    }

    fn read(text: &str) -> (Vec<Line>, Problems) {
        let mut problems = Problems::new("f");
        let lines = lines(&Arc::from("f"), text, &mut problems);
        (lines, problems)
    }

    #[test]
    fn files_keep_line_numbers_through_blocks() {
        let (lines, problems) =
            read("\u{feff}client\r\n<ca>\r\nA # not a comment\r\n \"B\r\n  </ca>\r\n--verb 4\r\n");
        assert!(!problems.any());
        let seen: Vec<_> = lines.iter().map(|l| (l.origin.line, l.name.as_str())).collect();
        assert_eq!(seen, [(1, "client"), (2, "ca"), (6, "verb")]);
        let block = lines.get(1).and_then(|l| l.inline.as_ref()).unwrap();
        assert_eq!(block.as_str(), "A # not a comment\n \"B\n");
    }

    #[test]
    fn bad_lines_do_not_hide_others() {
        let (lines, problems) = read("push \"x\nverb 3\n<key>\nabc\n");
        let names: Vec<_> = lines.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["verb", "key"]);
        let error = problems.finish().unwrap_err();
        assert_eq!(error.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn command_line_forms() {
        let argv = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut problems = Problems::new("argv");
        let lines =
            arguments(&argv("--dev tun --server 10.8.0.0 255.255.255.0 --verb 3"), &mut problems);
        let seen: Vec<_> =
            lines.iter().map(|l| format!("{} {}", l.name, l.args.join(","))).collect();
        assert_eq!(seen, ["dev tun", "server 10.8.0.0,255.255.255.0", "verb 3"]);
        let lines = arguments(&argv("a.conf --verb 3"), &mut problems);
        let seen: Vec<_> =
            lines.iter().map(|l| format!("{} {}", l.name, l.args.join(","))).collect();
        assert_eq!(seen, ["config a.conf", "verb 3"]);
        assert!(!problems.any());
    }

    #[test]
    fn debug_shows_no_block() {
        let (lines, _) = read("<key>\nSECRET\n</key>\n");
        assert!(!format!("{lines:?}").contains("SECRET"));
    }
}

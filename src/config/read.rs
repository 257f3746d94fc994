//! Files and arguments to one flat list of known directives: includes, `cd`, the directive table.
//!
//! What comes out holds only [`Status::Done`] directives with a fitting number of arguments;
//! everything else has been reported. Their arguments' meaning is `build`'s business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Files;
use super::directive::{self, ANY, BLOCK, CCD, CLIENT, Directive, MANY, Places, SERVER, Status};
use super::lex::{self, Line};
use super::problem::{Origin, Problems};

/// Files that include files that include files, at most this deep.
const MAX_DEPTH: usize = 10;
/// Files of one configuration, however they are included: two that include each other twice would
/// otherwise be read a thousand times before the depth ends it.
const MAX_FILES: usize = 100;

/// Directives that may be written as a block `<name>…</name>`.
const INLINE: [&str; 16] = [
    "auth-gen-token-secret",
    "auth-user-pass",
    "ca",
    "cert",
    "connection",
    "crl-verify",
    "dh",
    "extra-certs",
    "http-proxy-user-pass",
    "key",
    "peer-fingerprint",
    "pkcs12",
    "secret",
    "tls-auth",
    "tls-crypt",
    "tls-crypt-v2",
];

/// Known directives in the order they were given.
pub(super) struct Source {
    lines: Vec<Line>,
    /// The lines inside each `<connection>` block.
    blocks: Vec<(Line, Vec<Line>)>,
    /// Names of lines that were refused, so that nobody misses what they stood for.
    refused: Vec<&'static str>,
    /// `cd`: what relative file names start from; empty is the process's own folder.
    folder: PathBuf,
}

impl Source {
    /// Everything in `path` and what it includes.
    pub(super) fn from_file(path: &Path, files: &dyn Files, problems: &mut Problems) -> Self {
        let mut reader = Reader::new(files, problems);
        let start = Origin { file: Arc::from(path.to_string_lossy()), line: 0 };
        reader.include(&start, path, 0);
        reader.finish()
    }

    /// Everything in a per-client file and what it includes; names there start from `base`.
    pub(super) fn from_client_file(
        path: &Path,
        base: &Path,
        files: &dyn Files,
        problems: &mut Problems,
    ) -> Self {
        let mut reader = Reader::new(files, problems);
        reader.place = Some(CCD);
        let shown = path.to_string_lossy();
        match files.read(path) {
            Ok(bytes) => {
                reader.folder = base.to_owned();
                let text = String::from_utf8_lossy(&bytes);
                let lines = lex::lines(&Arc::from(shown), &text, reader.problems);
                reader.take_all(lines, 0);
            }
            Err(why) => {
                let origin = Origin { file: Arc::from(shown), line: 0 };
                reader.problems.error(&origin, format!("cannot read it: {why}"));
            }
        }
        reader.finish()
    }

    /// Everything in the arguments and the files they name.
    pub(super) fn from_args(args: &[String], files: &dyn Files, problems: &mut Problems) -> Self {
        let lines = lex::arguments(args, problems);
        let mut reader = Reader::new(files, problems);
        reader.take_all(lines, 0);
        reader.finish()
    }

    /// Whether nothing at all was found.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.refused.is_empty()
    }

    /// The line that counts: the last one of this name.
    pub(super) fn last(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.name == name)
    }

    /// All lines in their order.
    pub(super) fn lines(&self) -> core::slice::Iter<'_, Line> {
        self.lines.iter()
    }

    /// The `<connection>` blocks: the line that opens each, and its lines.
    pub(super) fn blocks(&self) -> &[(Line, Vec<Line>)] {
        &self.blocks
    }

    /// What one block says, and outside of it the file: but for keys, of which the block's own
    /// replaces whatever kind the file has.
    pub(super) fn with_block(&self, block: &[Line]) -> Self {
        let own = ["remote", "tls-auth", "tls-crypt", "tls-crypt-v2"];
        let outside = self.lines.iter().filter(|line| !own.contains(&line.name.as_str()));
        Self {
            lines: outside.chain(block).cloned().collect(),
            blocks: Vec::new(),
            refused: self.refused.clone(),
            folder: self.folder.clone(),
        }
    }

    /// All lines of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// Whether there is such a line.
    pub(super) fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    /// Whether there is such a line, or was one that has been refused.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.has(name) || self.refused.contains(&name)
    }

    /// Where a file named in the configuration is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reports lines that belong to the other role.
    pub(super) fn check_places(&self, server: bool, problems: &mut Problems) {
        for line in &self.lines {
            let Some(known) = directive::find(&line.name) else { continue };
            if !known.places.contains(if server { SERVER } else { CLIENT }) {
                let (other, this) =
                    if server { ("client", "server") } else { ("server", "client") };
                let text =
                    format!("`{}` is for a {other}, and this configures a {this}", line.name);
                problems.error(&line.origin, text);
            }
        }
    }
}

/// Reads, includes, sorts out.
struct Reader<'a> {
    files: &'a dyn Files,
    problems: &'a mut Problems,
    lines: Vec<Line>,
    blocks: Vec<(Line, Vec<Line>)>,
    refused: Vec<&'static str>,
    folder: PathBuf,
    /// Files that may still be read.
    files_left: usize,
    /// `ignore-unknown-option`.
    tolerated: Vec<String>,
    /// Where all lines stand, if that is known before they are read.
    place: Option<Places>,
}

impl<'a> Reader<'a> {
    fn new(files: &'a dyn Files, problems: &'a mut Problems) -> Self {
        Self {
            files,
            problems,
            lines: Vec::new(),
            blocks: Vec::new(),
            refused: Vec::new(),
            folder: PathBuf::new(),
            files_left: MAX_FILES,
            tolerated: Vec::new(),
            place: None,
        }
    }

    fn finish(self) -> Source {
        let Self { lines, blocks, refused, folder, .. } = self;
        Source { lines, blocks, refused, folder }
    }

    fn include(&mut self, from: &Origin, path: &Path, depth: usize) {
        if self.files_left == 0 {
            return;
        }
        self.files_left -= 1;
        if depth > MAX_DEPTH || self.files_left == 0 {
            // Said once: what else these files include would only say it again.
            self.files_left = 0;
            let text =
                format!("more than {MAX_DEPTH} files include each other; does one include itself?");
            return self.problems.error(from, text);
        }
        let shown = path.to_string_lossy();
        let bytes = match self.files.read(&self.folder.join(path)) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(why) => {
                return self
                    .problems
                    .error(from, format!("cannot read configuration file {shown}: {why}"));
            }
        };
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        let lines = lex::lines(&Arc::from(shown), &text, self.problems);
        self.take_all(lines, depth);
    }

    fn take_all(&mut self, lines: Vec<Line>, depth: usize) {
        for line in lines {
            self.take(line, depth);
        }
    }

    fn take(&mut self, mut line: Line, depth: usize) {
        let optional = line.name == "setenv" && line.arg(0) == Some("opt") && line.args.len() > 1;
        if optional {
            let mut rest = core::mem::take(&mut line.args).into_iter().skip(1);
            line.name = rest.next().unwrap_or_default();
            line.args = rest.collect();
        }
        let tolerated = optional || self.tolerated.contains(&line.name);
        let Some(known) = directive::find(&line.name) else {
            return self.unknown(&line, tolerated);
        };
        if self.place.is_some_and(|place| !known.places.contains(place)) {
            let text = format!("`{}` cannot stand in a file for one client", known.name);
            return self.problems.error(&line.origin, text);
        }
        if !self.arguments_fit(known, &line) {
            return self.refused.push(known.name);
        }
        match known.status {
            Status::Ignored(why) => {
                self.problems.warn(&line.origin, format!("`{}` has no effect: {why}", line.name))
            }
            Status::Refused(why) if tolerated => {
                self.problems.warn(
                    &line.origin,
                    format!("`{}` is left out, as it is marked optional: {why}", line.name),
                );
            }
            Status::Refused(why) => {
                self.refused.push(known.name);
                self.problems.error(&line.origin, format!("`{}` is refused: {why}", line.name));
            }
            Status::Done => self.accept(known, line, depth),
        }
    }

    fn unknown(&mut self, line: &Line, tolerated: bool) {
        let name = line.name.escape_debug();
        if tolerated {
            return self.problems.warn(
                &line.origin,
                format!("`{name}` is not known and left out, as it is marked optional"),
            );
        }
        let hint = match directive::nearest(&line.name) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        self.problems.error(&line.origin, format!("unknown directive `{name}`{hint}"));
    }

    fn arguments_fit(&mut self, known: &Directive, line: &Line) -> bool {
        if line.inline.is_some() {
            let fits = INLINE.contains(&known.name);
            if !fits {
                self.problems
                    .error(&line.origin, format!("`{}` cannot be written as a block", known.name));
            }
            return fits;
        }
        let given = line.args.len();
        let fits = (known.min..=known.max).contains(&given);
        if !fits {
            let wanted = match (known.min, known.max) {
                (0, 0) => "no argument".to_owned(),
                (1, 1) => "1 argument".to_owned(),
                (min, max) if min == max => format!("{min} arguments"),
                (min, ANY) => format!("at least {min}"),
                (min, max) => format!("{min} to {max} arguments"),
            };
            let hint = match known.name {
                "push" => {
                    "put quotes around what is pushed, as in push \"route 10.0.0.0 255.0.0.0\""
                }
                _ => known.help,
            };
            self.problems.error(
                &line.origin,
                format!("`{}` takes {wanted}, not {given}: {hint}", known.name),
            );
        }
        fits
    }

    /// A good line: done here if it is about reading itself, else kept.
    fn accept(&mut self, known: &Directive, line: Line, depth: usize) {
        match known.name {
            "config" => {
                let path = PathBuf::from(line.arg(0).unwrap_or_default());
                return self.include(&line.origin, &path, depth + 1);
            }
            "connection" => return self.block(line, depth),
            "cd" => self.folder = self.folder.join(line.arg(0).unwrap_or_default()),
            "ignore-unknown-option" => self.tolerated.extend(line.args.iter().cloned()),
            _ => {}
        }
        // `ca [inline]` announced a block in old profiles; only tls-auth's has something to say.
        if line.arg(0) == Some("[inline]") {
            if let (true, Some(direction)) = (known.name == "tls-auth", line.arg(1)) {
                let args = vec![direction.to_owned()];
                self.lines.push(Line { name: "key-direction".to_owned(), args, ..line });
            }
            return;
        }
        // An option on the command line is there to replace what a file says; anything else that
        // is given twice may be an oversight.
        if !known.places.contains(MANY) && &*line.origin.file != Origin::COMMAND_LINE {
            let before = self.lines.iter().rev().find(|other| other.name == line.name);
            if let Some(before) =
                before.filter(|before| before.args != line.args || before.inline != line.inline)
            {
                let text = format!("`{}` replaces the one at {}", line.name, place(&before.origin));
                self.problems.warn(&line.origin, text);
            }
        }
        self.lines.push(line);
    }

    /// A `<connection>` block: its lines are held against the table like all others.
    fn block(&mut self, line: Line, depth: usize) {
        let Some(text) = &line.inline else {
            let text = "`connection` is a block: <connection>, a `remote` line, </connection>";
            return self.problems.error(&line.origin, text);
        };
        let inside = lex::lines_after(&line.origin, text, self.problems);
        let outside = core::mem::take(&mut self.lines);
        for inner in inside {
            match directive::find(&inner.name) {
                Some(known) if !known.places.contains(BLOCK) => {
                    let text = format!(
                        "`{}` cannot stand in a <connection> block; write it outside",
                        inner.name
                    );
                    self.problems.error(&inner.origin, text);
                }
                _ => self.take(inner, depth),
            }
        }
        let inside = core::mem::replace(&mut self.lines, outside);
        self.blocks.push((line, inside));
    }
}

fn place(origin: &Origin) -> String {
    if origin.line == 0 {
        origin.file.to_string()
    } else {
        format!("{}:{}", origin.file, origin.line)
    }
}

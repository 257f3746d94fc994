//! A text as a QR code for a terminal; the code itself is made by `qrcodegen`.

use core::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around the code. The standard has four; readers of screens are content with two.
const MARGIN: i32 = 2;
/// Black on white, whatever the terminal's colours are, and back.
const COLOURS: [&str; 2] = ["\u{1b}[30;107m", "\u{1b}[0m"];

/// Lines of half blocks, two rows of modules each; `None` for a text that no code has room for. With
/// `coloured` it is dark on light on every terminal, otherwise on those that write dark on light.
pub fn blocks(text: &str, coloured: bool) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let [start, end] = if coloured { COLOURS } else { ["", ""] };
    let (first, last) = (-MARGIN, code.size() + MARGIN);
    let mut out = String::new();
    for y in (first..last).step_by(2) {
        out.push_str(start);
        for x in first..last {
            out.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{end}");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_corners_are_there() {
        let text =
            blocks("otpauth://totp/x:y?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", false).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        // 29 or 33 modules and the margin; two rows on a line.
        assert!((33..=37).contains(&width) && lines.len() == width.div_ceil(2));
        assert!(lines[0].trim().is_empty());
        assert!(lines[1].starts_with("  █▀▀▀▀▀█ ") && lines[1].ends_with(" █▀▀▀▀▀█  "));
        assert!(
            lines[lines.len() - 3].starts_with("  █ ███ █")
                || lines[lines.len() - 4].starts_with("  █ ███ █")
        );
        assert!(blocks(&"x".repeat(5000), false).is_none());
        assert!(blocks("x", true).unwrap().lines().all(|line| line.starts_with(COLOURS[0])));
    }
}

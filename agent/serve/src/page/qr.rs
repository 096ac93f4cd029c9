//! A QR code as SVG: black on white in dark mode too, as some readers know no
//! other.

use qrcode::{EcLevel, QrCode, render::svg::Color};

/// Width and height at most, in pixels.
const SIDE: u32 = 232;

/// `text` as an element of HTML; `None` where it is too long for a code.
pub fn svg(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let image = code
        .render::<Color<'_>>()
        .max_dimensions(SIDE, SIDE)
        .build();
    // HTML has no XML declarations.
    let (_, image) = image.split_once("?>")?;
    Some(format!(
        "<div role=\"img\" aria-label=\"QR code of this page's address\">{image}</div>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_a_square_of_modules_and_one_that_is_too_long_becomes_nothing() {
        let code = svg("http://ca.lab.internal:7480/").unwrap();
        assert!(code.contains("viewBox=\"0 0 222 222\""), "{code}");
        // The upper edge of the first finder pattern.
        assert!(code.contains("d=\"M24 24h6v6H24V24M30 24"), "{code}");
        assert_eq!(svg(&"x".repeat(4000)), None);
    }
}

//! How a mesh came to agree, and what that cost, as a drawing.

use std::fmt::Write as _;

use crate::outcome::Sample;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 160.0;
const MARGIN: f64 = 50.0;

/// An SVG with the share of nodes that agree and the bytes sent each second,
/// over time.
pub fn svg(title: &str, samples: &[Sample]) -> String {
    let end = samples.last().map_or(1, |sample| sample.at_ms).max(1) as f64;
    let x = |at_ms: u64| MARGIN + at_ms as f64 / end * WIDTH;
    let mut seconds: Vec<u64> = Vec::new();
    for sample in samples {
        let second = (sample.at_ms / 1000) as usize;
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += sample.bytes;
    }
    let most = seconds.iter().copied().max().unwrap_or(1).max(1);
    let agreed = samples
        .iter()
        .map(|sample| (x(sample.at_ms), MARGIN + HEIGHT * (1.0 - sample.agreed)));
    let floor = 2.0 * MARGIN + 2.0 * HEIGHT;
    let sent = seconds.iter().zip(0..).map(|(bytes, second)| {
        let share = *bytes as f64 / most as f64;
        (x(second * 1000), floor - HEIGHT * share)
    });
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + 2.0 * MARGIN,
        floor + MARGIN
    );
    let mut text = |x: f64, y: f64, words: &str| {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(out, "<text x=\"{x:.0}\" y=\"{y:.0}\">{words}</text>");
    };
    text(MARGIN, 20.0, title);
    text(
        MARGIN,
        MARGIN - 8.0,
        "share of nodes with the most common view",
    );
    text(8.0, MARGIN + 4.0, "100 %");
    text(8.0, MARGIN + HEIGHT, "0 %");
    let words = format!("bytes sent a second, by all; at most {most}");
    text(MARGIN, floor - HEIGHT - 8.0, &words);
    text(MARGIN, floor + 20.0, "0 s");
    text(
        MARGIN + WIDTH - 30.0,
        floor + 20.0,
        &format!("{:.0} s", end / 1000.0),
    );
    line(&mut out, "#1a6", agreed);
    line(&mut out, "#15a", sent);
    out.push_str("</svg>\n");
    out
}

fn line(out: &mut String, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
    let _ = write!(out, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"");
    for (x, y) in points {
        let _ = write!(out, "{x:.1},{y:.1} ");
    }
    out.push_str("\"/>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_both_lines_and_its_title_in_order() {
        let sample = |at_ms, agreed, bytes| Sample {
            at_ms,
            agreed,
            bytes,
        };
        let drawn = svg("a < b", &[sample(0, 0.5, 10), sample(1500, 1.0, 20)]);
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.contains("a &lt; b") && drawn.ends_with("</svg>\n"));
        assert!(svg("", &[]).contains("polyline"));
    }
}

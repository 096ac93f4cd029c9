//! QR codes, read back by zbar: a screenshot of a terminal of 80 columns, and the
//! picture.

use std::{fs, path::Path};

use innermesh_tests::{Agent, Lab, installed};

use crate::world::mesh_with;

const CONFIG: &str = "[tunnel]\nendpoint = \"gw.example.org\"\n";
/// Pixels of half a character's height, and of its width.
const SQUARE: usize = 6;

/// What zbar reads in a picture.
fn read(agent: &Agent, picture: &Path) -> String {
    let picture = picture.to_string_lossy();
    let words = [
        "zbarimg",
        "--raw",
        "--quiet",
        "-Sdisable",
        "-Sqrcode.enable",
    ];
    let said = agent.host.run(&[&words[..], &[&picture]].concat()).ok();
    // It ends what it read with an end of line of its own.
    said.strip_suffix('\n').unwrap_or(&said).to_owned()
}

/// A terminal's picture of lines of half blocks, black on white, as a PGM.
fn screenshot(lines: &[&str]) -> Vec<u8> {
    let mut rows: Vec<Vec<bool>> = Vec::new();
    for line in lines {
        let halves: Vec<(bool, bool)> = line
            .chars()
            .map(|c| match c {
                '█' => (true, true),
                '▀' => (true, false),
                '▄' => (false, true),
                ' ' => (false, false),
                other => panic!("{other:?} in a code"),
            })
            .collect();
        rows.push(halves.iter().map(|half| half.0).collect());
        rows.push(halves.iter().map(|half| half.1).collect());
    }
    let width = rows.first().map_or(0, Vec::len) * SQUARE;
    let mut picture = format!("P5 {width} {} 255\n", rows.len() * SQUARE).into_bytes();
    for row in rows {
        let line: Vec<u8> = row
            .iter()
            .flat_map(|dark| [if *dark { 0 } else { 255 }; SQUARE])
            .collect();
        for _ in 0..SQUARE {
            picture.extend(&line);
        }
    }
    picture
}

/// The lines of a code, without the colours around them.
fn code(shown: &str) -> Vec<&str> {
    let lines = shown.lines();
    lines
        .filter_map(|line| {
            line.strip_prefix("\u{1b}[30;107m")?
                .strip_suffix("\u{1b}[0m")
        })
        .collect()
}

#[test]
fn a_code_on_eighty_columns_is_read_back_equal_and_so_is_the_picture() {
    if !installed(&["zbarimg"]) {
        return;
    }
    let Some(lab) = Lab::new(1) else { return };
    let [alpha] = mesh_with(&lab, CONFIG);
    let folder = &alpha.host.directory;
    let (out, png) = (folder.join("phone.conf"), folder.join("phone.png"));
    let files = [
        "--out",
        &out.to_string_lossy(),
        "--png",
        &png.to_string_lossy(),
    ];
    let words = ["device", "add", "phone", "--qr"];
    let shown = alpha.cli(&[&words[..], &files].concat()).ok();
    let text = fs::read_to_string(&out).expect("the configuration");
    assert!(
        text.contains("\nEndpoint = gw.example.org:51820\n"),
        "{text}"
    );
    assert!(text.len() <= 425, "{} bytes:\n{text}", text.len());

    let lines = code(&shown);
    assert!(!lines.is_empty(), "{shown}");
    for line in &lines {
        assert!(line.chars().count() <= 80, "{}", line.chars().count());
    }
    let picture = folder.join("screenshot.pgm");
    fs::write(&picture, screenshot(&lines)).expect("a file of the laboratory");
    assert_eq!(read(&alpha, &picture), text);
    assert_eq!(read(&alpha, &png), text);
}

#[test]
fn a_private_key_is_shown_once_and_stored_nowhere() {
    let Some(lab) = Lab::new(1) else { return };
    let [mut alpha] = mesh_with(&lab, CONFIG);
    let told = alpha.json(&["device", "add", "phone"]);
    let private = told["private_key"].as_str().expect("one").to_owned();
    let configuration = &told["configurations"][0];
    let config = configuration["config"].as_str().expect("a text");
    assert!(config.contains(&private));
    let secret = configuration["preshared_key"].as_str().expect("one");

    // On the gateway the pre-shared key can be read; the private one nowhere.
    let shown = alpha.cli(&["device", "show", "phone"]).ok();
    assert!(
        shown.contains(secret) && !shown.contains(&private),
        "{shown}"
    );
    let whole = config.replace(
        &format!("PrivateKey = {private}"),
        "# PrivateKey = the one of this device, which has never been anywhere else",
    );
    assert!(shown.contains(&whole), "{shown}\n{whole}");
    let raw = |text: &str| {
        let bytes = data_encoding::BASE64.decode(text.as_bytes());
        bytes.expect("a key in base64")
    };
    alpha.stop();
    for hidden in [raw(&private), raw(secret)] {
        each_file(&alpha.dir, &mut |file, bytes| {
            let found = bytes.windows(hidden.len()).any(|window| window == hidden);
            assert!(!found, "{}", file.display());
        });
    }
    each_file(&alpha.dir, &mut |file, bytes| {
        let text = String::from_utf8_lossy(bytes);
        assert!(
            !text.contains(&private) && !text.contains(secret),
            "{}",
            file.display()
        );
    });
}

fn each_file(folder: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_file(&path, look);
        } else if let Ok(bytes) = fs::read(&path) {
            look(&path, &bytes);
        }
    }
}

//! What the README shows, run as a user runs it.

use std::path::Path;

use crate::lab::{Lan, example};

#[test]
fn one_program_runs_on_a_laptop_and_in_production() {
    let lan = Lan::new();
    let host = lan.host(1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("examples/dev_to_prod/run");
    // The log goes to the other stream.
    let both = "exec \"$0\" \"$1\" 2>&1";
    let mut command = host.command("bash");
    let output = command
        .args([
            "-c",
            both,
            script.to_str().expect("a path of text"),
            &example("dev_to_prod"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let shown = readme
        .split("```text\n$ dev_to_prod\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    // Interfaces and addresses are those of whoever runs it.
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('$'));
        let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
        let words = |line: &str| {
            line.split_whitespace()
                .filter(is_word)
                .filter(|word| !["lo", "eth"].contains(word))
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        lines.map(words).collect()
    };
    let said_without_colours = without_colours(&said);
    assert_eq!(
        words(&said_without_colours),
        words(&format!("$\n{}", shown.expect("the README shows it")))
    );
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\u{1b}') => escape = true,
            (false, c) => plain.push(c),
            (true, c) => escape = !c.is_ascii_alphabetic(),
        }
    }
    plain
}

//! What the command line asks for.

use std::str::FromStr;

use crate::Outcome;
use crate::measures::MEASURES;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Args {
    /// Take these measures; all where none is named.
    Measure { quick: bool, only: Vec<String> },
    /// Be the idle process whose cost P9 takes.
    Idle { who: Who, settle: u64, seconds: u64 },
    /// Be a process that publishes an instance with this id.
    Publish(String),
    /// Be a process that watches so many for so long, in seconds.
    Watch { count: usize, seconds: u64 },
}

/// Whose cost is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Raw,
    /// A runtime that does nothing.
    Nobody,
}

impl Who {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Raw => "raw",
            Self::Nobody => "nobody",
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Ours, Self::Raw, Self::Nobody]
            .into_iter()
            .find(|who| who.as_str() == text)
            .ok_or_else(|| format!("--idle takes ours, raw or nobody, not '{text}'"))
    }
}

impl Args {
    /// None where there is nothing to do: `cargo test --benches` starts benches without `--bench`.
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Outcome<Option<Self>> {
        let mut words = words.peekable();
        let (mut bench, mut quick, mut only) = (false, false, Vec::new());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--idle" => {
                    let mut next = || words.next().ok_or("--idle takes who, and two times in seconds");
                    let who = next()?.parse()?;
                    let (settle, seconds) = (next()?.parse()?, next()?.parse()?);
                    return Ok(Some(Self::Idle { who, settle, seconds }));
                }
                "--publish" => return Ok(Some(Self::Publish(words.next().ok_or("--publish takes an id")?))),
                "--watch" => {
                    let mut next = || words.next().ok_or("--watch takes a number and a time in seconds");
                    let (count, seconds) = (next()?.parse()?, next()?.parse()?);
                    return Ok(Some(Self::Watch { count, seconds }));
                }
                name => {
                    let known = MEASURES.iter().find(|known| known.eq_ignore_ascii_case(name));
                    only.push((*known.ok_or_else(|| unknown(name))?).to_owned());
                }
            }
        }
        if !bench {
            println!("a bench, which has nothing to test: scripts/bench runs it");
            return Ok(None);
        }
        Ok(Some(Self::Measure { quick, only }))
    }
}

fn unknown(name: &str) -> String {
    format!(
        "there is no '{name}'; there are {} and --quick",
        MEASURES.join(", ")
    )
}

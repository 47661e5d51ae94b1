//! What the suite found, as a table.

use std::fmt;
use std::time::Duration;

/// What the suite found, one [`Check`] for each promise. Prints as a table.
#[derive(Clone, Debug)]
#[must_use = "a report that nobody reads checks nothing: see `assert_passed`"]
pub struct Report {
    backend: String,
    checks: Vec<Check>,
}

/// One promise, and whether it was kept.
#[derive(Clone, Debug)]
pub struct Check {
    name: String,
    promise: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Whether a promise was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All of it was checked, and holds.
    Passed,
    /// It was broken, and how.
    Failed(String),
    /// What could be checked holds; the rest needs this of the world, which does not support it.
    Unsupported(String),
}

impl Report {
    pub(super) fn new(backend: String, checks: Vec<Check>) -> Self {
        Self { backend, checks }
    }

    /// The backend, as it describes itself.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The promises that were checked, in order.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether something was checked, and no promise was found broken. What could not be checked
    /// is in [`unsupported`](Self::unsupported).
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.failed().next().is_none()
    }

    /// The promises that are broken.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed(_)))
    }

    /// The promises that could not be checked in full.
    pub fn unsupported(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Unsupported(_)))
    }

    /// For a test.
    ///
    /// # Panics
    ///
    /// With the table, unless [`passed`](Self::passed).
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.passed(), "\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", crate::instance::escaped(&self.backend))?;
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        let (failed, unsupported) = (self.failed().count(), self.unsupported().count());
        let passed = self.checks.len() - failed - unsupported;
        write!(
            f,
            "{} promises: {passed} passed, {failed} failed, {unsupported} not checked in full",
            self.checks.len()
        )
    }
}

impl Check {
    pub(super) fn new(name: &str, promise: &'static str, outcome: Outcome, took: Duration) -> Self {
        Self {
            name: name.to_owned(),
            promise,
            outcome,
            took,
        }
    }

    pub(super) fn unknown(name: &str) -> Self {
        let outcome = Outcome::Failed("there is no promise of this name; C1 to C12 are".to_owned());
        Self::new(name, "", outcome, Duration::ZERO)
    }

    /// Its name: `C5`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is promised, in words.
    #[must_use]
    pub fn promise(&self) -> &'static str {
        self.promise
    }

    /// Whether it was kept.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// How long the check took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, label, more) = match &self.outcome {
            Outcome::Passed => ("passed", "", ""),
            Outcome::Failed(why) => ("FAILED", "why", why.as_str()),
            Outcome::Unsupported(what) => ("partly", "not checked, since it needs", what.as_str()),
        };
        let took = self.took.as_secs_f64();
        write!(f, "  {:<4} {word:<7} {took:>6.2} s  {}", self.name, self.promise)?;
        if !more.is_empty() {
            write!(f, "\n{:24}{label}: {more}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let check = |outcome: &Outcome| Check::new("C1", "it works", outcome.clone(), Duration::ZERO);
        Report::new("memory".to_owned(), outcomes.iter().map(check).collect())
    }

    #[test]
    fn a_report_of_nothing_has_not_passed() {
        assert!(!report(&[]).passed());
        assert!(report(&[Outcome::Passed, Outcome::Unsupported("an outage".to_owned())]).passed());
        assert!(!report(&[Outcome::Passed, Outcome::Failed("a ghost".to_owned())]).passed());
    }

    #[test]
    fn the_table_says_why_and_what_was_left_out() {
        let table = report(&[
            Outcome::Passed,
            Outcome::Failed("a ghost".to_owned()),
            Outcome::Unsupported("an outage".to_owned()),
        ])
        .to_string();
        for part in [
            "memory\n",
            "C1   passed    0.00 s  it works\n",
            "why: a ghost\n",
            "not checked, since it needs: an outage\n",
            "3 promises: 1 passed, 1 failed, 1 not checked in full",
        ] {
            assert!(table.contains(part), "{part:?} is not in\n{table}");
        }
    }

    #[test]
    #[should_panic(expected = "a ghost")]
    fn a_failure_panics_with_the_table() {
        report(&[Outcome::Failed("a ghost".to_owned())]).assert_passed();
    }
}

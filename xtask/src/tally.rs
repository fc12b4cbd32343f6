//! Reads what the test harnesses print, and sums it up.

/// What came of all tests so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<String>,
    skips: Vec<String>,
    /// Which harness the lines belong to, as cargo announces it.
    harness: String,
    /// Test binaries announced whose result has not come.
    unfinished: bool,
}

impl Tally {
    /// Takes in one line of a harness or of cargo.
    pub(crate) fn read(&mut self, line: &str) {
        let plain = without_colour(line);
        let line = plain.trim_start();
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let before = counts.split(word).next().filter(|before| before.len() < counts.len());
                before
                    .and_then(|before| before.split_whitespace().next_back()?.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            self.passed += count(" passed");
            self.failed += count(" failed");
            self.skipped += count(" ignored");
            self.unfinished = false;
        } else if let Some(test) = line.strip_prefix("test ") {
            self.read_test(test);
        } else if let Some(harness) =
            line.strip_prefix("Running ").or_else(|| line.strip_prefix("Doc-tests "))
        {
            self.harness_ended();
            self.harness = harness_name(harness).to_owned();
            self.unfinished = true;
        }
    }

    /// Notes that something which is not a test failed, as a build or a linter.
    pub(crate) fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// Notes that something which is not a test cannot be done here, and why.
    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        self.skipped += 1;
        self.skips.push(format!("{what} ({reason})"));
    }

    /// Notes that the harness is gone; one that ended without a result has failed.
    pub(crate) fn harness_ended(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            let harness = std::mem::take(&mut self.harness);
            self.fail(&format!("{harness}: ended before it told its result"));
        }
    }

    /// Failed tests, checks and builds so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// The names of what failed and of what was skipped, and the one line that ends every run.
    pub(crate) fn summary(&self) -> String {
        let failures = self.failures.iter().map(|name| format!("failed: {name}\n"));
        let skips = self.skips.iter().map(|name| format!("skipped: {name}\n"));
        let names: String = failures.chain(skips).collect();
        format!("{names}{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    fn read_test(&mut self, test: &str) {
        let Some((name, outcome)) = test.split_once(" ... ") else { return };
        let name = format!("{}: {}", self.harness, name.trim());
        let outcome = outcome.trim();
        if outcome.starts_with("FAILED") {
            self.failures.push(name);
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_matches([',', ' ', '(', ')']);
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            self.skips.push(format!("{name} ({reason})"));
        }
    }
}

/// `adit_esp` of `unittests src/lib.rs (target/debug/deps/adit_esp-0123456789abcdef)`, and of a plain `adit_esp`.
fn harness_name(announced: &str) -> &str {
    let file = announced.split_once('(').map_or(announced, |(_, path)| path.trim_end_matches(')'));
    let file = file.rsplit('/').next().unwrap_or(file);
    file.rsplit_once('-').map_or(file, |(name, _)| name)
}

fn without_colour(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('\x1b') {
        plain.push_str(&rest[..at]);
        rest = rest[at..].split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn harnesses_are_summed_up_and_names_kept() {
        let tally = tally(
            "     Running unittests src/lib.rs (target/debug/deps/adit_esp-1)\n\
             test replay::old ... ok\n\
             test replay::slow ... ignored, takes an hour\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
             \x1b[1m\x1b[32m     Running\x1b[0m scenarios/lab.rs (target/debug/deps/lab-1)\n\
             test nat ... \x1b[31mFAILED\x1b[0m\n\
             test root ... ignored (takes root)\n\
             test result: FAILED. 10 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9s\n",
        );
        assert_eq!(
            tally.summary(),
            "failed: lab: nat\nskipped: adit_esp: replay::slow (takes an hour)\n\
             skipped: lab: root (takes root)\n11 passed, 1 failed, 2 skipped"
        );
    }

    #[test]
    fn what_is_not_a_test_can_fail_too() {
        let mut tally = tally("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
        tally.fail("cargo fmt --check");
        assert_eq!(tally.summary(), "failed: cargo fmt --check\n3 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failed(), 1);
        tally.skip("Miri", "not here");
        assert_eq!(
            tally.summary(),
            "failed: cargo fmt --check\nskipped: Miri (not here)\n3 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn a_harness_that_dies_has_failed() {
        let mut tally = tally("     Running scenarios/lab.rs (target/debug/deps/lab-1)\ntest nat ... \n");
        tally.harness_ended();
        assert_eq!(
            tally.summary(),
            "failed: lab: ended before it told its result\n0 passed, 1 failed, 0 skipped"
        );
    }
}

//! A document for people whose commands can be executed: its `sh` blocks are one session of a shell, and a `text` block is
//! what the block before it writes.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Stands in a `text` block for what differs from time to time: in a line for any text, alone for any lines.
const ANYTHING: &str = "…";

/// What a shell writes between two blocks.
const MARK: &str = "\u{1e}block ended";

/// Commands, and what they write.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the document that the first command is on.
    pub line: usize,
    /// The commands, a line each.
    pub commands: String,
    /// What is shown; nothing where nothing is.
    pub shown: String,
}

/// The blocks of a document in Markdown.
///
/// # Errors
/// A `text` block that no `sh` block is before, or a block without an end.
pub fn blocks(document: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            match lines.next() {
                None => bail!("the block of line {} has no end", number + 1),
                Some((_, "```")) => break,
                Some((_, line)) => text += &format!("{line}\n"),
            }
        }
        match language {
            "sh" => blocks.push(Block { line: number + 2, commands: text, shown: String::new() }),
            "text" => match blocks.last_mut() {
                Some(block) if block.shown.is_empty() => block.shown = text,
                _ => bail!("line {}: nothing is executed before what is shown", number + 1),
            },
            _ => {}
        }
    }
    Ok(blocks)
}

/// Executes blocks one after the other in one shell, which `shell` starts with the script as its last argument, and compares
/// what each writes with what is shown of it.
///
/// # Errors
/// A command failed, or wrote something else: with the block and all that it wrote.
pub fn execute(blocks: &[Block], mut shell: Command) -> Result<()> {
    let script = blocks.iter().map(|block| format!("{}echo '{MARK}'\n", block.commands));
    let output = shell.arg(format!("set -e\nexec 2>&1\n{}", script.collect::<String>())).output();
    let output = output.context("the shell could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mark = format!("{MARK}\n");
    let mut written: Vec<&str> = text.split(mark.as_str()).collect();
    let rest = written.pop().unwrap_or_default();
    for (block, written) in blocks.iter().zip(&written) {
        if !is_shown(&block.shown, written) {
            bail!(
                "the commands of line {} wrote\n{written}and shown is\n{}the commands:\n{}",
                block.line,
                block.shown,
                block.commands
            );
        }
    }
    match blocks.get(written.len()) {
        Some(block) => bail!(
            "the commands of line {} failed ({}), having written\n{rest}{}the commands:\n{}",
            block.line,
            output.status,
            String::from_utf8_lossy(&output.stderr),
            block.commands
        ),
        None if output.status.success() => Ok(()),
        None => bail!("the shell ended with {}", output.status),
    }
}

/// Whether a text is what is shown of it. Blanks at the end of a line do not count.
fn is_shown(shown: &str, text: &str) -> bool {
    let shown: Vec<&str> = shown.lines().collect();
    let text: Vec<&str> = text.lines().collect();
    lines_match(&shown, &text)
}

fn lines_match(shown: &[&str], text: &[&str]) -> bool {
    match shown.split_first() {
        None => text.is_empty(),
        Some((&ANYTHING, rest)) => (0..=text.len()).any(|skipped| lines_match(rest, &text[skipped..])),
        Some((first, rest)) => text.split_first().is_some_and(|(line, text)| {
            line_matches(first.trim_end(), line.trim_end()) && lines_match(rest, text)
        }),
    }
}

fn line_matches(shown: &str, line: &str) -> bool {
    match shown.split_once(ANYTHING) {
        None => shown == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            let ends = (0..=rest.len()).filter(|end| rest.is_char_boundary(*end));
            ends.into_iter().any(|end| line_matches(after, &rest[end..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash() -> Command {
        let mut command = Command::new("bash");
        command.arg("-c");
        command
    }

    #[test]
    fn a_document_is_executed_and_compared() {
        let good = "# T\n\n```toml\nx = 1\n```\n```sh\na=1\n```\n\n```sh\necho $a; echo two >&2\n```\n```text\n1\nt…o\n```\n";
        let found = blocks(good).unwrap();
        assert_eq!(found.iter().map(|b| b.line).collect::<Vec<_>>(), [7, 11]);
        execute(&found, bash()).unwrap();
        for (shown, why) in [("1\n", "line 11 wrote"), ("2\ntwo\n", "line 11 wrote"), ("", "line 11 wrote")] {
            let mut other = blocks(good).unwrap();
            other[1].shown = shown.into();
            let error = execute(&other, bash()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let failing = blocks("```sh\necho x; false\n```\n```text\nx\n```\n").unwrap();
        let error = execute(&failing, bash()).unwrap_err().to_string();
        assert!(error.contains("line 2 failed") && error.contains("\nx\n"), "{error}");
    }

    #[test]
    fn a_block_has_an_end_and_what_is_shown_belongs_to_one() {
        assert!(blocks("```sh\nx\n").is_err());
        assert!(blocks("```text\nx\n```\n").is_err());
    }

    #[test]
    fn what_differs_is_left_out() {
        for (shown, text, same) in [
            ("a …, b\n", "a 1, 2, b\n", true),
            ("a …, b\n", "a 1, 2, c\n", false),
            ("…\nlast\n", "x\ny\nlast\n", true),
            ("…\nlast\n", "last\n", true),
            ("…\nlast\n", "last\nx\n", false),
            ("a  \n", "a\n", true),
            ("", "x\n", false),
            ("x\n", "", false),
        ] {
            assert_eq!(is_shown(shown, text), same, "{shown:?} {text:?}");
        }
    }
}

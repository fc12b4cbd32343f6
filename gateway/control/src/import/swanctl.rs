//! strongSwan's swanctl.conf.

use super::{
    ImportError,
    draft::{Draft, Suite, joined},
    subnets,
    words::{id, proposals, seconds, secret},
};
use crate::config::{Start, Subnet};
use adit_ike::{Id, Mode, NatT, Version};
use std::iter::Peekable;

/// Sections within sections.
const DEEPEST: usize = 16;
/// Sections and values in all.
const MOST: usize = 20_000;

/// A section: values and sections by name, with their lines.
#[derive(Debug, Default)]
struct Section {
    values: Vec<(String, String, usize)>,
    sections: Vec<(String, Section, usize)>,
}

impl Section {
    fn get(&self, name: &str) -> Option<(&str, usize)> {
        self.values.iter().rfind(|(n, ..)| n == name).map(|(_, value, line)| (value.as_str(), *line))
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|(n, ..)| n == name).map(|(_, section, _)| section)
    }
}

/// Every child of every connection with pre-shared keys.
///
/// # Errors
/// Of syntax, and of what Adit does not have.
pub(super) fn read(text: &str, remote_subnets: &[Subnet]) -> Result<Vec<Draft>, ImportError> {
    let root = parse(text)?;
    let Some(connections) = root.section("connections") else { return Ok(Vec::new()) };
    let mut drafts = Vec::new();
    for (name, section, line) in &connections.sections {
        let children = section.section("children").map_or(&[][..], |c| &c.sections);
        if children.is_empty() {
            return Err(ImportError::new(*line, format!("connection {name:?} has no children")));
        }
        let mut own = Vec::new();
        for (child_name, child, child_line) in children {
            let mut draft = connection(name, section, *line, &root)?;
            draft.line = *child_line;
            draft.name = if children.len() == 1 { name.clone() } else { format!("{name}-{child_name}") };
            phase2(&mut draft, child, *child_line, remote_subnets)?;
            own.push(draft);
        }
        let mut own = joined(own)?;
        if let [only] = &mut own[..] {
            only.name.clone_from(name);
        }
        drafts.extend(own);
    }
    Ok(drafts)
}

fn connection(name: &str, section: &Section, line: usize, root: &Section) -> Result<Draft, ImportError> {
    let first =
        |name| section.get(name).map(|(v, l)| (v.split(',').next().unwrap_or(v).trim().to_owned(), l));
    let address = match first("remote_addrs") {
        None => "any".to_owned(),
        Some((address, _)) if address.starts_with("%any") || address == "0.0.0.0/0" => "any".to_owned(),
        Some((address, _)) => address,
    };
    let mut draft = Draft::new(line, name, address);
    draft.local = first("local_addrs").map(|(address, _)| address).filter(|a| !a.starts_with('%'));
    match section.get("version") {
        None | Some(("0", _)) => {
            draft.notes.push("strongSwan took either version of IKE; Adit takes one, ikev2".into())
        }
        Some(("1", _)) => draft.version = Version::Ikev1,
        Some(("2", _)) => {}
        Some((other, line)) => {
            return Err(ImportError::new(line, format!("version {other:?} is none of IKE")));
        }
    }
    if section.get("aggressive").is_some_and(|(v, _)| is_yes(v)) {
        draft.mode = Mode::Aggressive;
    }
    if section.get("encap").is_some_and(|(v, _)| is_yes(v)) {
        draft.nat_t = NatT::Force;
    }
    if let Some((text, line)) = section.get("proposals") {
        draft.ike = proposals(text, line)?;
    }
    let time = |name| section.get(name).map(|(v, l)| seconds(v, l)).transpose();
    let (rekey, reauth, over) = (time("rekey_time")?, time("reauth_time")?, time("over_time")?);
    draft.ike_lifetime =
        rekey.or(reauth).filter(|s| *s > 0).map(|s| s.saturating_add(over.unwrap_or(s / 10)));
    let (delay, timeout) = (time("dpd_delay")?, time("dpd_timeout")?);
    draft.dpd = Some(delay.filter(|d| *d > 0).map(|d| (d, timeout.unwrap_or(0).saturating_sub(d).max(13))));
    let sides = |wanted: &str| {
        let is_side =
            |n: &str| n == wanted || n.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('-'));
        section.sections.iter().filter(move |(n, ..)| is_side(n)).collect::<Vec<_>>()
    };
    for side in ["local", "remote"] {
        for (_, auth, line) in sides(side) {
            if let Some((how, line)) = auth.get("auth")
                && how != "psk"
            {
                return Err(ImportError::new(
                    line,
                    format!("{side} authentication by {how:?}: Adit has pre-shared keys only"),
                ));
            }
            let found = auth.get("id").map(|(text, line)| id(text, line)).transpose()?.flatten();
            let place = if side == "local" { &mut draft.local_id } else { &mut draft.peer_id };
            if place.is_some() {
                return Err(ImportError::new(
                    *line,
                    "a second round of authentication, which Adit does not have",
                ));
            }
            *place = found;
        }
    }
    key(&mut draft, root)?;
    Ok(draft)
}

/// Of the keys that fit both sides the one that names most of them.
fn key(draft: &mut Draft, root: &Section) -> Result<(), ImportError> {
    let Some(secrets) = root.section("secrets") else { return Ok(()) };
    let address = |text: &Option<String>| text.as_ref().and_then(|t| t.parse::<Id>().ok());
    let sides = [
        draft.local_id.clone().or(address(&draft.local)),
        draft.peer_id.clone().or(address(&Some(draft.address.clone()))),
    ];
    let mut best: Option<(usize, &str, usize)> = None;
    for (name, section, _) in &secrets.sections {
        let Some((text, line)) = section.get("secret").filter(|_| name.starts_with("ike")) else { continue };
        let mut named = 0;
        let mut fits = true;
        for (_, owner, line) in section.values.iter().filter(|(n, ..)| n == "id" || n.starts_with("id-")) {
            match id(owner, *line)? {
                Some(owner) if sides.iter().flatten().any(|side| side.matches(&owner)) => named += 1,
                Some(_) => fits = false,
                None => {}
            }
        }
        if fits && best.is_none_or(|(most, ..)| named > most) {
            best = Some((named, text, line));
        }
    }
    match best {
        Some((_, text, line)) => draft.set_psk(secret(text, line)?, line),
        None => Ok(()),
    }
}

fn phase2(
    draft: &mut Draft,
    child: &Section,
    line: usize,
    remote_subnets: &[Subnet],
) -> Result<(), ImportError> {
    if let Some((mode, line)) = child.get("mode")
        && mode != "tunnel"
    {
        return Err(ImportError::new(line, format!("mode {mode:?}: Adit has tunnel mode only")));
    }
    let selectors = |name: &str| match child.get(name) {
        None | Some(("dynamic", _)) => {
            Err(ImportError::new(line, format!("{name} is the peer's own address; Adit joins networks")))
        }
        Some((text, line)) => subnets(text, line),
    };
    let (local, remote) = (selectors("local_ts")?, selectors("remote_ts")?);
    set_subnets(draft, local, remote, remote_subnets);
    draft.ah = child.get("ah_proposals").is_some();
    if let Some((text, line)) = child.get("ah_proposals").or(child.get("esp_proposals")) {
        draft.ipsec = Some(proposals(text, line)?).filter(|s| *s != Suite::default());
    }
    draft.start = match child.get("start_action").map_or("none", |(v, _)| v) {
        "none" => Start::Respond,
        "trap" => Start::OnDemand,
        _ => Start::Immediate,
    };
    let time = |name| child.get(name).map(|(v, l)| seconds(v, l)).transpose();
    let rekey = time("rekey_time")?.map(|s| s.saturating_add(s / 10));
    draft.ipsec_lifetime = time("life_time")?.or(rekey).filter(|s| *s > 0);
    Ok(())
}

/// Subnets, or everything: then by route.
pub(super) fn set_subnets(draft: &mut Draft, local: Vec<Subnet>, remote: Vec<Subnet>, routes: &[Subnet]) {
    let is_all = |list: &[Subnet]| list.iter().all(|s| *s == Subnet::ALL_V4 || *s == Subnet::ALL_V6);
    if is_all(&local) && is_all(&remote) {
        draft.routes = routes.to_vec();
    } else {
        (draft.local_subnets, draft.remote_subnets) = (local, remote);
    }
}

pub(super) fn is_yes(value: &str) -> bool {
    matches!(value, "yes" | "true" | "enabled" | "1")
}

/// Reads the file into sections.
fn parse(text: &str) -> Result<Section, ImportError> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut open: Vec<(String, Section, usize)> = vec![(String::new(), Section::default(), 1)];
    let mut count = 0;
    loop {
        reader.skip_space();
        let line = reader.line;
        count += 1;
        if count > MOST {
            return Err(ImportError::new(line, format!("there are more than {MOST} sections and values")));
        }
        let Some(next) = reader.chars.peek().copied() else { break };
        if next == '}' {
            reader.chars.next();
            let closed = open.pop();
            match (closed, open.last_mut()) {
                (Some(closed), Some((_, parent, _))) => parent.sections.push(closed),
                _ => return Err(ImportError::new(line, "a } that closes nothing")),
            }
            continue;
        }
        let name = reader.name();
        let depth = open.len();
        let Some((_, current, _)) = open.last_mut() else { break };
        match reader.chars.peek() {
            Some('{') if depth > DEEPEST => {
                return Err(ImportError::new(line, format!("sections are deeper than {DEEPEST}")));
            }
            Some('{') => {
                reader.chars.next();
                open.push((name, Section::default(), line));
            }
            Some('=') => {
                reader.chars.next();
                let value = reader.value()?;
                current.values.push((name, value, line));
            }
            Some(':') => {
                return Err(ImportError::new(
                    line,
                    "references to other sections are not followed: write them out",
                ));
            }
            _ if name.starts_with("include") => {
                return Err(ImportError::new(line, "other files are not read: put their text here"));
            }
            _ => return Err(ImportError::new(line, format!("{name:?} is neither a section nor a value"))),
        }
    }
    match open.pop() {
        Some((_, root, _)) if open.is_empty() => Ok(root),
        unclosed => {
            let (name, _, line) = unclosed.unwrap_or_default();
            Err(ImportError::new(line.max(1), format!("section {name:?} is not closed")))
        }
    }
}

struct Reader<I: Iterator<Item = char>> {
    chars: Peekable<I>,
    line: usize,
}

impl<I: Iterator<Item = char>> Reader<I> {
    fn skip_space(&mut self) {
        while let Some(c) = self.chars.peek().copied() {
            match c {
                '\n' => self.line += 1,
                '#' => {
                    // The end of the line is left for the next turn.
                    while self.chars.peek().is_some_and(|c| *c != '\n') {
                        self.chars.next();
                    }
                    continue;
                }
                c if c.is_whitespace() => {}
                _ => return,
            }
            self.chars.next();
        }
    }

    /// What stands before the next mark, on the same line.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| !"{}=:#\n".contains(*c)) {
            name.push(c);
        }
        // The brace may stand on the next line.
        if self.chars.peek() == Some(&'\n') {
            self.skip_space();
        }
        name.trim().to_owned()
    }

    /// What stands behind the sign: between quotes, or up to the end of the line.
    fn value(&mut self) -> Result<String, ImportError> {
        while self.chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        let mut value = String::new();
        if self.chars.next_if_eq(&'"').is_some() {
            let begun = self.line;
            loop {
                match self.chars.next() {
                    Some('"') => return Ok(value),
                    Some('\\') => value.extend(self.chars.next()),
                    Some(c) => {
                        self.line += usize::from(c == '\n');
                        value.push(c);
                    }
                    None => return Err(ImportError::new(begun, "quotes that are not closed")),
                }
            }
        }
        while let Some(c) = self.chars.next_if(|c| !"}#\n".contains(*c)) {
            value.push(c);
        }
        Ok(value.trim().to_owned())
    }
}

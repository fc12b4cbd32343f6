//! `[[group]]`: tunnels to the same networks that back each other up.

use super::{
    Group, GroupMode, Subnet, Tunnel,
    reader::{Field, Section},
    sections::{GENERATED, remark_and_labels, unique_name},
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

/// Members of a group, at most.
pub(crate) const MAX_MEMBERS: usize = 16;

/// A group as it was read, with the fields that name its members.
pub(super) struct Drafted<'a> {
    pub(super) group: Group,
    members: Vec<Field<'a>>,
}

/// Something that is wrong with a member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Which.
    pub(crate) member: String,
    /// What is wrong.
    pub(crate) why: String,
    /// The tunnel that it does not go with.
    pub(crate) clashes_with: Option<String>,
}

/// Reads a group, whatever its members are.
pub(super) fn group<'a>(mut s: Section<'a>, names: &mut BTreeSet<String>) -> Option<Drafted<'a>> {
    let name = unique_name(&mut s, "group", names);
    let mode = s.get("mode").map_or(Some(GroupMode::ActiveStandby), |f| {
        f.word(&GroupMode::ALL.map(|mode| (mode.word().to_owned(), mode)), &[])
    });
    let mut members = Vec::new();
    let mut fields = Vec::new();
    if let Some(list) = s.require("members") {
        let elements = list.elements();
        if elements.len() > MAX_MEMBERS {
            let why = format!("are {}, more than a group can have", elements.len());
            list.refuse_whole(&why, &format!("1..{MAX_MEMBERS} names of tunnels"));
        }
        for element in elements {
            let Some(name) = element.text().map(str::to_owned) else { continue };
            if members.contains(&name) {
                element.fail("is in the list twice", None);
                continue;
            }
            members.push(name);
            fields.push(element);
        }
    }
    remark_and_labels(&s);
    s.finish(&GENERATED);
    Some(Drafted { group: Group { name: name?, mode: mode?, members }, members: fields })
}

/// Reports members that do not go together, and tunnels that are in two groups.
pub(super) fn check(drafted: &[Drafted<'_>], tunnels: &[Tunnel]) {
    let by_name: HashMap<&str, &Tunnel> = tunnels.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for Drafted { group, members } in drafted {
        let report = |misfit: Misfit| {
            let at = group.members.iter().position(|name| *name == misfit.member);
            if let Some(field) = at.and_then(|at| members.get(at)) {
                field.clash(misfit.why, misfit.clashes_with.as_deref());
            }
        };
        let known = |name: &str| by_name.get(name).copied();
        misfits(group, known).into_iter().for_each(report);
        for member in &group.members {
            if let Some(other) = owners.insert(member, &group.name) {
                let why = in_another(member, other);
                report(Misfit { member: member.clone(), why, clashes_with: None });
            }
        }
    }
}

/// What is said of a tunnel that another group has.
pub(crate) fn in_another(member: &str, other: &str) -> String {
    format!("tunnel {member:?} is in group {other:?} already")
}

/// What is said of two tunnels whose health checks could not be told apart.
pub(crate) fn same_check((from, to): (IpAddr, IpAddr), owner: &str) -> String {
    format!(
        "from {from} to {to} is also the health check of tunnel {owner:?}: each needs a source or a destination of its own"
    )
}

/// What is wrong with the members of a group: they have to be there, without BGP, and to reach the same networks from the same ones.
pub(crate) fn misfits<'t>(group: &Group, tunnel: impl Fn(&str) -> Option<&'t Tunnel>) -> Vec<Misfit> {
    let pairs = |t: &Tunnel| t.pairs().collect::<BTreeSet<(Subnet, Subnet)>>();
    let mut first: Option<(&Tunnel, BTreeSet<_>)> = None;
    let mut found = Vec::new();
    for member in &group.members {
        let misfit = |why: String, other: Option<&Tunnel>| Misfit {
            member: member.clone(),
            why,
            clashes_with: other.map(|t| t.name.clone()),
        };
        let Some(one) = tunnel(member) else {
            found.push(misfit(format!("{member:?} is no tunnel"), None));
            continue;
        };
        if one.bgp.is_some() {
            let why = format!("tunnel {member:?} has bgp: BGP says already which of them carries what");
            found.push(misfit(why, None));
            continue;
        }
        match &first {
            None => first = Some((one, pairs(one))),
            Some((other, theirs)) if pairs(one) != *theirs => {
                let why = format!(
                    "tunnel {member:?} joins other networks than tunnel {:?}: members of a group have the same local and \
                     remote subnets, or the same routes",
                    other.name
                );
                found.push(misfit(why, Some(other)));
            }
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::path::Path;

    const TOP: &str = "[gateway]\nname = \"g\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
                       [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n";

    fn tunnel(name: &str, remote: &str, more: &str) -> String {
        format!(
            "[[tunnel]]\nname = \"{name}\"\npeer = \"b\"\npsk = \"0123456789abcdef\"\n\
             local_subnets = \"10.1.0.0/16\"\nremote_subnets = {remote}\n{more}"
        )
    }

    fn read(parts: &[String]) -> Result<Config, String> {
        Config::parse(Path::new("t"), &format!("{TOP}{}", parts.concat())).map_err(|e| e.to_string())
    }

    fn group(name: &str, members: &str) -> String {
        format!("[[group]]\nname = \"{name}\"\nmembers = {members}\n")
    }

    #[test]
    fn members_may_have_the_same_subnets_and_others_may_not() {
        let (one, two) = (tunnel("one", "[\"10.2.0.0/16\"]", ""), tunnel("two", "[\"10.2.0.0/16\"]", ""));
        let said = read(&[one.clone(), two.clone()]).unwrap_err();
        assert!(said.contains("is also that of tunnel \"one\""), "{said}");
        let config = read(&[one.clone(), two.clone(), group("g", "[\"one\", \"two\"]")]).unwrap();
        assert_eq!(config.groups[0].members, ["one", "two"]);
        let three = tunnel("three", "[\"10.2.0.0/16\"]", "");
        let said = read(&[one, two, three, group("g", "[\"one\", \"two\"]")]).unwrap_err();
        assert!(said.contains("tunnel \"three\".local_subnets: "), "{said}");
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let one = tunnel("one", "[\"10.2.0.0/16\", \"10.3.0.0/16\"]", "");
        // The order of subnets says nothing.
        let same = tunnel("two", "[\"10.3.0.0/16\", \"10.2.0.0/16\"]", "");
        let other = tunnel("two", "[\"10.2.0.0/16\"]", "");
        assert!(read(&[one.clone(), same.clone(), group("g", "[\"one\", \"two\"]")]).is_ok());
        let third = tunnel("three", "[\"10.9.0.0/16\"]", "");
        for (parts, words) in [
            (vec![one.clone(), other, group("g", "[\"one\", \"two\"]")], "joins other networks"),
            (vec![one.clone(), group("g", "[\"one\", \"x\"]")], "\"x\" is no tunnel"),
            (vec![one.clone(), group("g", "[\"one\", \"one\"]")], "in the list twice"),
            (vec![one.clone(), group("g", "[]")], "must not be empty"),
            (
                vec![one.clone(), third, group("g", "[\"one\"]"), group("h", "[\"three\", \"one\"]")],
                "is in group \"g\" already",
            ),
            (vec![one.clone(), group("g", "[\"one\"]"), group("g", "[\"one\"]")], "another group above"),
            (vec![one.clone(), format!("{}mode = \"random\"\n", group("g", "[\"one\"]"))], "active-standby"),
        ] {
            let said = read(&parts).unwrap_err();
            assert!(said.contains("group") && said.contains(words), "{said}");
        }
        let check = "health_check = { source = \"10.1.0.1\", destination = \"10.2.0.1\" }\n";
        let (one, two) =
            (tunnel("one", "[\"10.2.0.0/16\"]", check), tunnel("two", "[\"10.2.0.0/16\"]", check));
        let said = read(&[one, two, group("g", "[\"one\", \"two\"]")]).unwrap_err();
        assert!(said.contains("health_check: ") && said.contains("is also the health check"), "{said}");
    }
}

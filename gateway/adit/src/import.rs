//! `adit tunnel import`: tunnels out of a configuration of others.

use crate::{capture, print};
use adit_control::{
    Config,
    config::Subnet,
    import::{Extra, Format, LONGEST, import},
};
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};
use zeroize::Zeroizing;

/// Reads `file`, and writes its tunnels to stdout or adds them to the configuration `into`.
pub(crate) fn run(
    format: Format,
    file: &Path,
    secrets: Option<&Path>,
    remote_subnets: &[Subnet],
    into: Option<&Path>,
) -> anyhow::Result<()> {
    let text = read(file)?;
    let secrets = secrets.map(read).transpose()?;
    let extra = Extra { secrets: secrets.as_ref().map(|s| s.as_str()), remote_subnets };
    let imported = import(format, &text, extra).with_context(|| file.display().to_string())?;
    let Some(into) = into else { return print(imported.text.trim_end()) };
    let there = Zeroizing::new(fs::read_to_string(into).with_context(|| into.display().to_string())?);
    let whole = Zeroizing::new([there.trim_end(), "\n\n", &*imported.text].concat());
    // What does not fit is told with its line in the file as it would be.
    let config = Config::parse(into, &whole)?;
    replace(into, &whole)?;
    for line in config.warnings_for(into).lines() {
        eprintln!("warning: {line}");
    }
    print(&format!(
        "{}: added {}; `adit reload` has a running gateway take it",
        into.display(),
        imported.tunnels.join(", ")
    ))
}

/// Reads no more than is taken.
fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let most = LONGEST as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    read.with_context(|| path.display().to_string())?;
    Ok(text)
}

/// Replaces the file as a whole, with the rights that it had.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        bail!("{} is no file", path.display());
    };
    let making = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let made = || -> anyhow::Result<()> {
        let mut file = capture::made(&making)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::metadata(path)?.permissions())?;
        file.sync_all()?;
        fs::rename(&making, path)?;
        Ok(())
    };
    made().inspect_err(|_| drop(fs::remove_file(&making))).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_added_to_a_file_if_it_fits() {
        let dir = std::env::temp_dir().join(format!("adit-import-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (ours, theirs) = (dir.join("adit.toml"), dir.join("theirs.conf"));
        let gateway = "[gateway]\nname = \"a\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n";
        fs::write(&ours, gateway).unwrap();
        let conn = "conn t\n left=192.0.2.1\n leftsubnet=10.1.0.0/16\n right=198.51.100.1\n rightsubnet=10.2.0.0/16\n \
                    auto=start\n";
        fs::write(&theirs, conn).unwrap();
        fs::write(dir.join("secrets"), ": PSK Sesame_0123456789\n").unwrap();
        let secrets = dir.join("secrets");
        let add = |secrets| run(Format::Strongswan, &theirs, secrets, &[], Some(&ours));
        // Without its key it is no configuration, and the file stays as it was.
        assert!(add(None).is_err());
        assert_eq!(fs::read_to_string(&ours).unwrap(), gateway);
        add(Some(&secrets)).unwrap();
        assert_eq!(Config::load(&ours).unwrap().tunnels[0].name, "t");
        let whole = fs::read_to_string(&ours).unwrap();
        assert!(add(Some(&secrets)).unwrap_err().to_string().contains("name of another"));
        assert_eq!(fs::read_to_string(&ours).unwrap(), whole);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        fs::remove_dir_all(dir).unwrap();
    }
}

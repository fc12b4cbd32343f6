//! The same with strongSwan: initiators in one charon, a responder that takes them all in another.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use adit_tests::namespace::{Namespace, Process, wait_for};
use adit_tests::run::Run;
use anyhow::{Context, Result, bail};

use super::gateways::{ADDRESSES, PATIENCE, PSK, Taken, pair, usage};

/// Connections that one charon is asked to hold.
const EACH: u32 = 1000;

/// Brings up `count` tunnels, a thousand a charon, pair after pair; the figures are sums.
pub(super) fn bring_up(count: u32) -> Result<Taken> {
    let mut sum = Taken { wall: Duration::ZERO, cpu: [Duration::ZERO; 2], memory: [0; 2] };
    let mut left = count;
    while left > 0 {
        let taken = one_pair(left.min(EACH))?;
        sum.wall += taken.wall;
        for side in [0, 1] {
            sum.cpu[side] += taken.cpu[side];
            sum.memory[side] += taken.memory[side];
        }
        left = left.saturating_sub(EACH);
    }
    Ok(sum)
}

fn one_pair(count: u32) -> Result<Taken> {
    let run = Run::begin()?;
    let namespaces = pair(&run)?;
    // Each local selector needs an address in it, as userspace ESP of charon has it; and with one address for all
    // connections charon takes 25 ms for each.
    let mut addresses = String::new();
    for id in 0..count {
        let (x, y) = (id / 250, id % 250);
        let _ = writeln!(addresses, "address add 10.{x}.{y}.1/32 dev lo\naddress add {} dev wan", source(id));
    }
    let batch = run.directory().join("addresses");
    fs::write(&batch, addresses)?;
    namespaces[0].ip(&["-batch", &batch.to_string_lossy()])?;
    namespaces[1].ip(&["route", "add", "198.18.0.0/15", "via", ADDRESSES[0]])?;
    namespaces[1].ip(&["address", "add", "100.64.0.1/10", "dev", "lo"])?;
    let mut responder = Charon::start(&run, &namespaces[1], &one_responder())?;
    let mut initiator = Charon::start(&run, &namespaces[0], &initiators(count))?;
    let before = [usage(initiator.process.pid())?, usage(responder.process.pid())?];
    let begun = Instant::now();
    initiator.initiate_all(count)?;
    wait_for(&format!("{count} tunnels of charon"), PATIENCE, || {
        std::thread::sleep(Duration::from_millis(80));
        for charon in [&mut initiator, &mut responder] {
            if let Some(status) = charon.process.ended() {
                bail!("charon ended ({status}):\n{}", charon.process.log_tail(10));
            }
        }
        Ok(responder.established()? >= count && initiator.established()? >= count)
    })?;
    let wall = begun.elapsed();
    let after = [usage(initiator.process.pid())?, usage(responder.process.pid())?];
    drop((initiator, responder));
    run.end()?;
    Ok(Taken {
        wall,
        cpu: [0, 1].map(|side| after[side].cpu - before[side].cpu),
        memory: [0, 1].map(|side| after[side].resident.saturating_sub(before[side].resident)),
    })
}

struct Charon {
    process: Process,
    namespace: Namespace,
    directory: PathBuf,
}

impl Charon {
    fn start(run: &Run, namespace: &Namespace, connections: &str) -> Result<Charon> {
        let directory = run.directory().join(format!("charon-{}", namespace.host()));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("strongswan.conf"), settings(&directory))?;
        fs::write(directory.join("swanctl.conf"), connections)?;
        let program = ["/usr/sbin/charon-systemd", "/usr/libexec/ipsec/charon-systemd"]
            .into_iter()
            .find(|program| Path::new(program).exists())
            .context("there is no charon-systemd; `cargo xtask setup` installs it")?;
        let mut command = namespace.command(program);
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        let process = namespace.spawn("charon", &mut command)?;
        let mut charon = Charon { process, namespace: namespace.clone(), directory };
        wait_for("charon's control socket", Duration::from_secs(10), || {
            if let Some(status) = charon.process.ended() {
                bail!("charon ended at once ({status}):\n{}", charon.process.log_tail(10));
            }
            Ok(charon.directory.join("vici.sock").exists())
        })?;
        let file = charon.directory.join("swanctl.conf");
        charon.swanctl(&["--load-all", "--file", &file.to_string_lossy()])?;
        Ok(charon)
    }

    /// Queues all initiations at once through vici: swanctl would wait for each.
    fn initiate_all(&self, count: u32) -> Result<()> {
        let mut socket = UnixStream::connect(self.directory.join("vici.sock"))?;
        for id in 0..count {
            let (child, ike) = (format!("k{id}"), format!("c{id}"));
            let mut message = vec![0, 8];
            message.extend(b"initiate");
            for (key, value) in [("child", child.as_str()), ("ike", &ike), ("timeout", "-1")] {
                message.extend([3, key.len() as u8]);
                message.extend(key.as_bytes());
                message.extend((value.len() as u16).to_be_bytes());
                message.extend(value.as_bytes());
            }
            socket.write_all(&(message.len() as u32).to_be_bytes())?;
            socket.write_all(&message)?;
            let mut length = [0; 4];
            socket.read_exact(&mut length)?;
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            socket.read_exact(&mut answer)?;
        }
        Ok(())
    }

    /// IKE SAs that are established.
    fn established(&self) -> Result<u32> {
        let text = self.swanctl(&["--stats"])?;
        let number = |line: &str| line.split_whitespace().find_map(|word| word.parse::<u32>().ok());
        let line = text.lines().find(|line| line.contains("IKE_SAs:")).unwrap_or_default();
        let (all, half_open) = line
            .split_once("IKE_SAs:")
            .map_or(("", ""), |(_, rest)| rest.split_once(',').unwrap_or((rest, "")));
        Ok(number(all).unwrap_or(0).saturating_sub(number(half_open).unwrap_or(0)))
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.directory.join("vici.sock").display());
        let output = self
            .namespace
            .command("swanctl")
            .args(arguments)
            .args(["--uri", &socket])
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .stdin(Stdio::null())
            .output()
            .context("`swanctl` could not be started; `cargo xtask setup` installs it")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn settings(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "charon-systemd {{
           load = random nonce aes sha1 sha2 hmac kdf gcm curve25519 openssl kernel-libipsec kernel-netlink \
                  socket-default vici
           ikesa_table_size = 4096
           ikesa_table_segments = 16
           reuse_ikesa = no
           init_limit_half_open = 0
           half_open_timeout = 60
           cookie_threshold = 0
           block_threshold = 0
           threads = 32
           plugins {{ vici {{ socket = unix://{directory}/vici.sock }} }}
           journal {{ default = -1 }}
           filelog {{ log {{ path = {directory}/charon.log\n default = 0\n }} }}
         }}
         swanctl {{ socket = unix://{directory}/vici.sock }}
        "
    )
}

fn initiators(count: u32) -> String {
    let [_, peer] = ADDRESSES;
    let mut text = String::from("connections {\n");
    for id in 0..count {
        let (x, y, local) = (id / 250, id % 250, source(id));
        let _ = write!(
            text,
            "c{id} {{ version = 2\n local_addrs = {local}\n remote_addrs = {peer}\n unique = never\n
             proposals = aes256gcm16-prfsha256-x25519\n
             local {{ auth = psk\n id = t{id}.a.example\n }}\n remote {{ auth = psk\n id = b.example\n }}\n
             children {{ k{id} {{ local_ts = 10.{x}.{y}.0/24\n remote_ts = 100.64.0.0/10\n
             esp_proposals = aes256gcm16\n start_action = none\n }} }} }}\n"
        );
    }
    let _ = write!(text, "}}\nsecrets {{ ike-1 {{ secret = \"{PSK}\" }} }}\n");
    text
}

/// The address of an initiator.
fn source(id: u32) -> String {
    format!("198.18.{}.{}", 1 + id / 250, 1 + id % 250)
}

fn one_responder() -> String {
    let [_, local] = ADDRESSES;
    format!(
        "connections {{ r {{ version = 2\n local_addrs = {local}\n unique = never\n
         proposals = aes256gcm16-prfsha256-x25519\n
         local {{ auth = psk\n id = b.example\n }}\n remote {{ auth = psk\n id = %any\n }}\n
         children {{ k {{ local_ts = 100.64.0.0/10\n remote_ts = 10.0.0.0/8\n esp_proposals = aes256gcm16\n }} }} }} }}
         secrets {{ ike-1 {{ secret = \"{PSK}\" }} }}\n"
    )
}

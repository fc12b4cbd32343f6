//! The command line.

use adit_control::{config::Subnet, import::Format as ImportFormat, peer_config::Vendor};
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A site-to-site IPsec VPN gateway on XDP.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "adit", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// What to log, to stderr: error, warn, info, debug, trace, or per module as in `info,adit_control=debug`.
    #[arg(long, env = "ADIT_LOG", default_value = "info", global = true, value_name = "FILTER")]
    pub(crate) log: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole gateway: data plane and control. SIGHUP reloads the configuration, SIGTERM and SIGINT close every
    /// tunnel and stop.
    Run(Gateway),
    /// Run control alone: IKE, policies, routes, API. It waits for the data plane, whenever that comes. SIGTERM and SIGINT
    /// leave every SA to the next control, which goes on with them; `adit tunnel down` closes a tunnel.
    Control(Gateway),
    /// Run the data plane alone: it reads the interfaces from the file and goes on with every SA in the maps.
    Dataplane(Gateway),
    /// Show what is up, what is not, and why.
    Status {
        #[command(flatten)]
        socket: Socket,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// The same as `-o json`.
        #[arg(long, conflicts_with = "output")]
        json: bool,
    },
    /// Show the metrics as Prometheus reads them.
    Metrics {
        #[command(flatten)]
        socket: Socket,
    },
    /// Have a running gateway read its configuration again. Tunnels that are the same go on untouched.
    Reload {
        #[command(flatten)]
        socket: Socket,
    },
    /// Look at one tunnel, or do something to it.
    Tunnel {
        /// What to look at, or what to do.
        #[command(subcommand)]
        command: TunnelCommand,
    },
    /// Say what is wrong with a configuration file, and what had better be changed.
    Check {
        /// The configuration file.
        #[arg(short, long, default_value = CONFIG, value_name = "FILE")]
        config: PathBuf,
    },
    /// Take the XDP program, its maps and the TUN device away. From then on nothing is protected and nothing dropped.
    Unload {
        /// Where the maps are pinned.
        #[arg(long, default_value = BPF_DIR, value_name = "DIR")]
        bpf_dir: PathBuf,
        /// Where control keeps what the next one needs [default: `sas` beside the directory of the maps]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}

/// What to look at, or what to do.
#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// Show its SAs, what they carry, how long they last, and what went wrong.
    Show {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        socket: Socket,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Take it up: negotiate at once, also where it is on demand or was taken down.
    Up {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Take it down and keep it down until `up` or a change of its configuration. What it protects is dropped.
    Down {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Renew its SAs while traffic goes on: the IKE SA and the Child SAs.
    Rekey {
        /// The tunnel's name.
        name: String,
        /// The IKE SA alone.
        #[arg(long, conflicts_with = "child")]
        ike: bool,
        /// The Child SAs alone.
        #[arg(long)]
        child: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Capture its packets as pcapng, for Wireshark and its sisters, until SIGINT or SIGTERM. One that does not keep up with
    /// the traffic misses packets, which the capture's statistics count; the traffic is not held up.
    Capture {
        /// The tunnel's name.
        name: String,
        /// Only what is inside: in clear.
        #[arg(long, conflicts_with_all = ["outer", "both"])]
        inner: bool,
        /// Only what is outside: sealed.
        #[arg(long, conflicts_with = "both")]
        outer: bool,
        /// Both, each on an interface of its own in the capture; so it is unless another is asked for.
        #[arg(long)]
        both: bool,
        /// Where to; a file of mode 0600. Without it, to stdout.
        #[arg(short, long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// The keys of its SAs, those too that come meanwhile, to this file of mode 0600: lines of Wireshark's table `esp_sa`,
        /// by which it opens what is outside. Only where api.capture_keys of the configuration allows it.
        #[arg(long, value_name = "FILE", conflicts_with = "inner")]
        keys: Option<PathBuf>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Write the configuration of the other side: local and remote swapped, in the words of its vendor. What the vendor cannot
    /// have, or had better not, is said in comments at the top.
    Config {
        /// The tunnel's name.
        name: String,
        /// Whose configuration.
        #[arg(long = "for", value_name = "VENDOR", value_parser = vendor())]
        vendor: Vendor,
        /// With its keys; otherwise a word stands where they go. Of a running gateway only where api.reveal_secrets of its
        /// configuration allows it.
        #[arg(long)]
        with_psk: bool,
        /// Where the other side reaches this gateway, if that is not gateway.address: the public address of a NAT before it.
        #[arg(long, value_name = "IP")]
        address: Option<IpAddr>,
        /// Write the files to this directory, mode 0600, rather than to stdout.
        #[arg(short, long, value_name = "DIR")]
        write: Option<PathBuf>,
        /// The tunnel of this configuration file rather than of a running gateway.
        #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
        config: Option<PathBuf>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Read tunnels out of a configuration of others: what a cloud lets download, a strongSwan's file, another Adit's. The peers
    /// and tunnels are written as TOML, with what has to be filled in or known in comments.
    Import {
        /// Whose configuration it is.
        #[arg(long, value_name = "FORMAT", value_parser = format())]
        from: ImportFormat,
        /// The file.
        file: PathBuf,
        /// strongSwan's ipsec.secrets, where the file is an ipsec.conf.
        #[arg(long, value_name = "FILE")]
        secrets: Option<PathBuf>,
        /// The networks behind the other side, where the file does not name them, as AWS's.
        #[arg(long, value_name = "CIDR", value_delimiter = ',')]
        remote_subnets: Vec<Subnet>,
        /// Add them to this configuration file, if they fit into it, rather than write them to stdout.
        #[arg(long, value_name = "FILE")]
        into: Option<PathBuf>,
    },
    /// Show the connection log: the last 1,000 events, oldest first.
    Log {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        socket: Socket,
    },
}

/// What a gateway runs with.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// The configuration file.
    #[arg(short, long, default_value = CONFIG, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where the maps are pinned: a directory in a bpffs, or one to mount a bpffs at.
    #[arg(long, default_value = BPF_DIR, value_name = "DIR")]
    pub(crate) bpf_dir: PathBuf,
    /// Where control keeps what the next one needs to go on with the tunnels, keys included: a directory in memory, or one
    /// to mount a tmpfs at [default: `sas` beside the directory of the maps]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// SAs that fit into the maps of a data plane that makes them: a tunnel takes two, four during a rekey. Another
    /// number takes effect after `adit unload`.
    #[arg(long, env = "ADIT_MAX_SAS", default_value_t = adit_maps::sa::DEFAULT_CAPACITY, value_name = "N")]
    pub(crate) max_sas: u32,
    /// What the cryptography of packets runs on, for tests and comparisons; by default the fastest that there is.
    #[arg(long, env = "ADIT_CRYPTO", value_enum, hide = true)]
    pub(crate) crypto: Option<Crypto>,
}

/// What the cryptography of packets runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Crypto {
    /// AVX-512 with VAES and VPCLMULQDQ, where the processor has them.
    Avx512,
    /// Portable code.
    Portable,
}

/// Where a running gateway listens.
#[derive(Debug, Args)]
pub(crate) struct Socket {
    /// The gateway's socket: api.socket of its configuration.
    #[arg(long, default_value = "/run/adit/adit.sock", value_name = "PATH")]
    socket: PathBuf,
}

impl From<Socket> for PathBuf {
    fn from(socket: Socket) -> PathBuf {
        socket.socket
    }
}

/// How to show something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where control keeps what the next one needs.
pub(crate) fn state_dir(named: Option<&PathBuf>, bpf_dir: &Path) -> PathBuf {
    named.cloned().unwrap_or_else(|| adit_control::kept::beside(bpf_dir))
}

/// A vendor by its word; help says what each is written for.
fn vendor() -> impl TypedValueParser<Value = Vendor> {
    let words = Vendor::ALL.map(|v| PossibleValue::new(v.word()).help(v.title()));
    PossibleValuesParser::new(words).try_map(|word| word.parse::<Vendor>())
}

/// A format by its word.
fn format() -> impl TypedValueParser<Value = ImportFormat> {
    let words = ImportFormat::ALL.map(|f| PossibleValue::new(f.word()).help(f.title()));
    PossibleValuesParser::new(words).try_map(|word| word.parse::<ImportFormat>())
}

const CONFIG: &str = "/etc/adit/adit.toml";
const BPF_DIR: &str = "/run/adit/bpf";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_parse() {
        for line in [
            "adit run --config a.toml --bpf-dir /tmp/bpf",
            "adit control --config a.toml",
            "adit dataplane",
            "adit status -o json --socket /tmp/s",
            "adit status --json",
            "adit tunnel up a-b",
            "adit tunnel show a-b -o json",
            "adit tunnel down a-b --socket /tmp/s",
            "adit tunnel rekey a-b",
            "adit tunnel rekey --ike a-b",
            "adit tunnel rekey a-b --child",
            "adit tunnel capture a-b --inner -w a-b.pcapng",
            "adit tunnel capture a-b --both",
            "adit tunnel capture a-b --outer -w a-b.pcapng --keys esp_sa",
            "adit tunnel config a-b --for strongswan",
            "adit tunnel config a-b --for strongswan-ipsec --with-psk --write /etc --config a.toml --address 192.0.2.9",
            "adit tunnel import --from aws vpn.txt --remote-subnets 10.0.0.0/16,10.1.0.0/16 --into adit.toml",
            "adit tunnel import --from strongswan ipsec.conf --secrets ipsec.secrets",
            "adit reload",
            "adit tunnel log a-b --socket /tmp/s",
            "adit check --config a.toml --log debug",
            "adit unload --bpf-dir /tmp/bpf",
            "adit metrics",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}

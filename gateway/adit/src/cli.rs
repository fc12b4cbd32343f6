//! The command line.

use crate::{
    logging::LogFormat,
    resources::{One, ResourceCommand, Shown, Verb},
};
use adit_api::{Client, Remote, Scope, Trust};
use adit_control::{config::Subnet, import::Format as ImportFormat, peer_config::Vendor};
use anyhow::Context;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};
use zeroize::Zeroizing;

/// A site-to-site IPsec VPN gateway on XDP.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or wrong configuration, 3 no gateway answers, 4 it does not let us, 5 there is no
/// such thing.
#[derive(Debug, Parser)]
#[command(name = "adit", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// What to log: error, warn, info, debug, trace, or per module as in `info,adit_control=debug`.
    #[arg(long, env = "ADIT_LOG", default_value = "info", global = true, value_name = "FILTER")]
    pub(crate) log: String,
    /// How to write the log.
    #[arg(long, env = "ADIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto, global = true, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole gateway: data plane and control. SIGHUP has the file of --config, if there is one, applied again; SIGTERM
    /// and SIGINT close every tunnel and stop.
    Run(Gateway),
    /// Run control alone: IKE, policies, routes, API. It waits for the data plane, whenever that comes. SIGTERM and SIGINT
    /// leave every SA to the next control, which goes on with them; `adit tunnel down` closes a tunnel.
    Control(Gateway),
    /// Run the data plane alone: it goes on with every SA in the maps. Its interfaces are those of the file of `--config`, as it
    /// begins; without one, or where that names no resource, those that control has put into the database in `--data-dir`, which
    /// it follows within a second.
    Dataplane(Gateway),
    /// Show what is up, what is not, and why.
    Status {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        shown: Shown,
        /// The same as `-o json`.
        #[arg(long, conflicts_with = "output")]
        json: bool,
    },
    /// Show the metrics as Prometheus reads them.
    Metrics {
        #[command(flatten)]
        access: Access,
    },
    /// Have a running gateway apply the file of its --config again: what that does not name is deleted, if it names any
    /// resource. Without one there is nothing to read. Tunnels that are the same go on untouched.
    Reload {
        #[command(flatten)]
        access: Access,
    },
    /// Make the configuration of a running gateway what a document says. What that changes is shown first, field by field; what
    /// is the same goes on untouched.
    Apply {
        /// The document: TOML, as `adit export` writes it; - is stdin.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Delete peers, tunnels, groups and alarm templates that are not in the document.
        #[arg(long)]
        prune: bool,
        /// Ask nobody.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        access: Access,
    },
    /// Write the configuration of a running gateway as a document that `adit apply` takes back.
    Export {
        /// With the keys of every tunnel: only where api.reveal_secrets of its configuration allows it. Without them those that
        /// are there stay when it is applied.
        #[arg(long)]
        with_psk: bool,
        #[command(flatten)]
        access: Access,
    },
    /// The gateway as it is configured, and what happens to it.
    Gateway {
        /// What to do with it, or what to look at.
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// The peers.
    Peer {
        /// What to do with them.
        #[command(subcommand)]
        command: ResourceCommand,
    },
    /// The connection groups: tunnels to the same networks that back each other up.
    Group {
        /// What to do with them.
        #[command(subcommand)]
        command: ResourceCommand,
    },
    /// The alarm templates: what of a gateway and its tunnels somebody is to be told.
    Alarm {
        /// What to do with them.
        #[command(subcommand)]
        command: AlarmCommand,
    },
    /// Look at tunnels, or do something to them.
    Tunnel {
        /// What to look at, or what to do.
        #[command(subcommand)]
        command: TunnelCommand,
    },
    /// The tokens that let other machines in.
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write the completion of this command line for a shell to stdout.
    Completion {
        /// Which.
        shell: clap_complete::Shell,
    },
    /// Write the manual: a page for each command.
    Man {
        /// Where to; it is made.
        directory: PathBuf,
    },
    /// Say what is wrong with a configuration file, and what had better be changed.
    Check {
        /// The configuration file.
        #[arg(short, long, default_value = CONFIG, value_name = "FILE")]
        config: PathBuf,
    },
    /// Take the XDP program, its maps, the TUN device and every route and rule of Adit's away, while neither control nor the data
    /// plane runs. From then on nothing is protected and nothing dropped.
    Unload {
        /// Where the maps are pinned.
        #[arg(long, default_value = BPF_DIR, value_name = "DIR")]
        bpf_dir: PathBuf,
        /// Where control keeps what the next one needs [default: `sas` beside the directory of the maps]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Touch nothing; only say, and exit with 1, if the maps that are there are of a version which this one cannot go on with.
        #[arg(long)]
        check: bool,
    },
}

impl Command {
    /// Whether it goes on until it is stopped, and is what others look for in a log.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Command::Run(_) | Command::Control(_) | Command::Dataplane(_))
    }
}

/// What to do with alarm templates.
#[derive(Debug, Subcommand)]
pub(crate) enum AlarmCommand {
    #[command(flatten)]
    Resource(ResourceCommand),
    /// Write those that a gateway or a tunnel names, and the usual one where the gateway names none, as a rule file of
    /// Prometheus.
    Rules {
        /// Write it to this file rather than to stdout.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one, and write to stdout what its holder shows. Nobody can see that again.
    Create {
        /// What it is for.
        name: String,
        /// What it allows.
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', default_value = "read", value_parser = scope())]
        scopes: Vec<Scope>,
        /// When it ends, counted from now, as in 12h, 30d; without it, never.
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
        #[command(flatten)]
        access: Access,
    },
    /// Show what there is of them, without their secrets.
    List {
        #[command(flatten)]
        shown: Shown,
        #[command(flatten)]
        access: Access,
    },
    /// Delete some: from then on they open nothing.
    Delete {
        /// By number or by name.
        #[arg(required = true, value_name = "TOKEN")]
        which: Vec<String>,
        #[command(flatten)]
        access: Access,
    },
}

/// What to do with the gateway, or what to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    #[command(flatten)]
    Resource(ResourceCommand),
    /// Show what happened to the gateway itself, who has changed what included: the last 1,000 events, oldest first.
    Log {
        #[command(flatten)]
        log: LogView,
    },
}

/// How a log is shown.
#[derive(Debug, Args)]
pub(crate) struct LogView {
    /// Go on with what happens from now on, until SIGINT.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many events.
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub(crate) last: Option<usize>,
    /// How to show it: as JSON, an object a line.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// What to look at, or what to do.
#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// Show what is configured of one, with every default; `show` has how it runs.
    Settings(One),
    #[command(flatten)]
    Resource(Verb),
    /// Show its SAs, what they carry, how long they last, and what went wrong.
    Show {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        shown: Shown,
    },
    /// Take it up: negotiate at once, also where it is on demand or was taken down.
    Up {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        access: Access,
    },
    /// Take it down and keep it down until `up` or a change of its configuration. What it protects is dropped.
    Down {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        access: Access,
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
        access: Access,
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
        access: Access,
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
        access: Access,
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
    /// Say why a tunnel does not do what it should: what is wrong, which field to change, and what each side has.
    Diagnose {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        shown: Shown,
    },
    /// Watch tunnels: state and rates as they are now, what happens as it happens. q ends it, arrows scroll, n, s, i and o sort
    /// by name, state, what comes in and what goes out. Without a terminal, or with --json, a line a tunnel and second.
    Watch(Watch),
    /// Show the connection log: the last 1,000 events, oldest first.
    Log {
        /// The tunnel's name.
        name: String,
        #[command(flatten)]
        log: LogView,
    },
}

/// What to watch.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// One tunnel alone.
    pub(crate) name: Option<String>,
    /// Objects of JSON, one a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,
    /// Without a terminal: how often to look; without it, until SIGINT.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// What a gateway runs with.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// A configuration file, applied at the start and at every reload: what it does not name is deleted, and `[api]` is taken
    /// from it. Without one, and with one that names no resource, the database of `--data-dir` is as it was left.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the maps are pinned: a directory in a bpffs, or one to mount a bpffs at.
    #[arg(long, default_value = BPF_DIR, value_name = "DIR")]
    pub(crate) bpf_dir: PathBuf,
    /// Where control keeps what the next one needs to go on with the tunnels, keys included: a directory in memory, or one
    /// to mount a tmpfs at [default: `sas` beside the directory of the maps]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the database of the configuration, the key to its secrets, the tokens of the API and its own certificate are kept.
    #[arg(long, env = "ADIT_DATA_DIR", default_value = "/var/lib/adit", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where control keeps the alarm templates as a rule file for Prometheus, which everybody may read; without it, `adit alarm
    /// rules` gives them.
    #[arg(long, env = "ADIT_ALARM_RULES", value_name = "FILE")]
    pub(crate) alarm_rules: Option<PathBuf>,
    /// SAs that fit into the maps of a data plane that makes them: a tunnel takes two, four during a rekey. Another
    /// number takes effect after `adit unload`.
    #[arg(long, env = "ADIT_MAX_SAS", default_value_t = adit_maps::sa::DEFAULT_CAPACITY, value_name = "N")]
    pub(crate) max_sas: u32,
    /// Where control serves /metrics over TCP when `api.metrics` of the configuration does not say; `none` is nowhere.
    #[arg(long, env = "ADIT_METRICS", default_value = "none", value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Metrics,
    /// What the cryptography of packets runs on, for tests and comparisons; by default the fastest that there is.
    #[arg(long, env = "ADIT_CRYPTO", value_enum, hide = true)]
    pub(crate) crypto: Option<Crypto>,
}

/// Where metrics are served over TCP, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metrics(pub(crate) Option<SocketAddr>);

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Metrics(None)),
            _ => match text.parse() {
                Ok(address) => Ok(Metrics(Some(address))),
                Err(_) => Err("give an address with a port, as in 127.0.0.1:9360, or none".to_owned()),
            },
        }
    }
}

/// What the cryptography of packets runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Crypto {
    /// AVX-512 with VAES and VPCLMULQDQ, where the processor has them.
    Avx512,
    /// AVX2, where the processor has it.
    Avx2,
    /// AES-NI and PCLMULQDQ, where the processor has them.
    #[value(name = "aesni")]
    AesNi,
    /// Portable code.
    Portable,
}

/// Where a running gateway is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where the gateway is")]
pub(crate) struct Access {
    /// The gateway's socket: api.socket of its configuration [default: /run/adit/adit.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A gateway of another machine: api.listen of its configuration.
    #[arg(long, env = "ADIT_URL", value_name = "https://HOST:PORT")]
    url: Option<String>,
    /// The file of the token that lets us in; ADIT_TOKEN has it otherwise.
    #[arg(long, env = "ADIT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities that may have signed its certificate, as PEM.
    #[arg(long, env = "ADIT_CA", value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca: PathBuf,
    /// The SHA-256 fingerprint of its certificate, as its log and `adit status` there show it; no authority counts then.
    #[arg(long, env = "ADIT_FINGERPRINT", value_name = "HEX")]
    fingerprint: Option<String>,
}

impl Access {
    /// A client of it; nothing is opened.
    pub(crate) fn client(self) -> anyhow::Result<Client> {
        // A socket that is named counts, whatever the environment says.
        let url = match (self.socket, self.url) {
            (Some(socket), _) => return Ok(Client::new(socket)),
            (None, Some(url)) => url,
            (None, None) => return Ok(Client::new(SOCKET)),
        };
        let token = match (self.token_file, std::env::var("ADIT_TOKEN")) {
            (Some(file), _) => {
                Zeroizing::new(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?)
            }
            (None, Ok(token)) => Zeroizing::new(token),
            (None, Err(_)) => {
                return Err(crate::wrong_usage(
                    "another machine wants a token: --token-file FILE, or ADIT_TOKEN",
                ));
            }
        };
        let token = Zeroizing::new(token.trim().to_owned());
        let trust = self.fingerprint.map_or(Trust::Authorities(self.ca), Trust::Fingerprint);
        Ok(Client::Remote(Remote::new(&url, token, &trust)?))
    }
}

/// How to show what goes on.
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

/// A scope by its word.
fn scope() -> impl TypedValueParser<Value = Scope> {
    let words = Scope::ALL.map(|scope| PossibleValue::new(scope.word()));
    PossibleValuesParser::new(words)
        .try_map(|word| Scope::ALL.into_iter().find(|scope| scope.word() == word).ok_or("is no scope"))
}

/// Seconds, from a number and its unit.
fn lifetime(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds)
    });
    seconds.filter(|s| *s > 0).ok_or_else(|| "a number and s, m, h or d, as in 30d".to_owned())
}

const SOCKET: &str = "/run/adit/adit.sock";
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
            "adit control --metrics 127.0.0.1:9360",
            "adit control --metrics none",
            "adit dataplane",
            "adit status -o json --socket /tmp/s",
            "adit status --json",
            "adit status -o yaml",
            "adit status -o csv --out tunnels.csv",
            "adit tunnel up a-b",
            "adit tunnel show a-b -o json",
            "adit tunnel diagnose a-b -o json",
            "adit tunnel diagnose a-b -o yaml",
            "adit tunnel show a-b -o yaml",
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
            "adit apply -f adit.toml --dry-run --prune",
            "adit apply --file - --yes",
            "adit export --with-psk",
            "adit tunnel log a-b --socket /tmp/s",
            "adit tunnel log -f a-b -o json",
            "adit tunnel log a-b -n 20",
            "adit gateway log -f -n 0 -o json",
            "adit check --config a.toml --log debug",
            "adit control --log-format json",
            "adit control --alarm-rules /var/cache/adit/alarms.yml",
            "adit alarm list -o json",
            "adit alarm rules --out alarms.yml",
            "adit unload --bpf-dir /tmp/bpf",
            "adit unload --check",
            "adit metrics",
            "adit status --url https://192.0.2.1:8443 --token-file t --fingerprint 00",
            "adit token create ci --scope read,write --expires 30d",
            "adit token list -o json",
            "adit token list -o xlsx --out tokens.xlsx",
            "adit token delete ci 0123456789abcdef",
            "adit completion bash",
            "adit gateway show a -o json",
            "adit gateway edit a remark=home",
            "adit peer list --search berlin --label site=1 --sort -name -o csv",
            "adit peer create b address=198.51.100.1",
            "adit group create aws members=aws-1,aws-2 mode=active-active",
            "adit tunnel list -o yaml",
            "adit tunnel settings a-b",
            "adit tunnel create a-b peer=b local_subnets=10.1.0.0/16 remote_subnets=10.2.0.0/16 psk=@key",
            "adit tunnel edit a-b ike.lifetime=3600 --file more.json",
            "adit tunnel edit a-b ike.lifetime=3600 -o json",
            "adit peer create b address=198.51.100.1 -o yaml",
            "adit tunnel delete a-b a-c",
            "adit man /tmp/man",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}

//! `atoll client`, `atoll open`, `atoll lock`, `atoll delegation`, `atoll copy`: who has what on a running server.

use crate::admin::client::Client as Api;
use crate::admin::states::{Client, Copy, Delegation, Evicted, File, Holder, Lease, Listing, Lock, Open};
use crate::export::percent_encode;
use anyhow::Result;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Of what a client says, so much is shown in a table.
const CELL_MAX: usize = 48;

#[derive(Args)]
struct Which {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Most rows, 1 to 10000.
    #[arg(long)]
    limit: Option<usize>,
    /// Go on after this place, which the listing before has named.
    #[arg(long)]
    after: Option<String>,
}

/// Of a command that only lists.
#[derive(Args)]
pub(crate) struct ListOptions {
    /// The data directory of the server.
    #[arg(long, default_value = "./data", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    action: ListAction,
}

#[derive(Subcommand)]
enum ListAction {
    /// Show them.
    List(Which),
}

/// Of `atoll client`.
#[derive(Args)]
pub(crate) struct ClientOptions {
    /// The data directory of the server.
    #[arg(long, default_value = "./data", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    action: ClientAction,
}

#[derive(Subcommand)]
enum ClientAction {
    /// Show the NFSv4 clients, and those of NLM that have locks.
    List(Which),
    /// End a client: what it has open and locked is freed at once, and it is told that its lease ran out. One of NLM is not told.
    Evict {
        /// Client id, as `atoll client list` shows it.
        id: String,
    },
}

/// Runs `atoll client`.
pub(crate) async fn client(options: ClientOptions) -> Result<()> {
    let mut api = Api::connect(&options.dir).await?;
    match options.action {
        ClientAction::List(which) => list::<Client>(&mut api, "/v1/clients", &which).await,
        ClientAction::Evict { id } => {
            let path = format!("/v1/clients?id={}", percent_encode(&id));
            let freed: Evicted = api.call(Method::DELETE, &path, None::<&()>).await?;
            match freed {
                Evicted { files: 0, sessions, opens, lock_states, delegations } => println!(
                    "client {id} evicted: {sessions} sessions, {opens} opens, {lock_states} lock states, \
                     {delegations} delegations freed"
                ),
                Evicted { files, .. } => println!("client {id}: its locks in {files} files freed"),
            }
            Ok(())
        }
    }
}

/// Runs `atoll open`.
pub(crate) async fn open(options: ListOptions) -> Result<()> {
    let ListAction::List(which) = options.action;
    list::<Open>(&mut Api::connect(&options.dir).await?, "/v1/opens", &which).await
}

/// Runs `atoll lock`.
pub(crate) async fn lock(options: ListOptions) -> Result<()> {
    let ListAction::List(which) = options.action;
    list::<Lock>(&mut Api::connect(&options.dir).await?, "/v1/locks", &which).await
}

/// Runs `atoll delegation`.
pub(crate) async fn delegation(options: ListOptions) -> Result<()> {
    let ListAction::List(which) = options.action;
    list::<Delegation>(&mut Api::connect(&options.dir).await?, "/v1/delegations", &which).await
}

/// Runs `atoll copy`.
pub(crate) async fn copy(options: ListOptions) -> Result<()> {
    let ListAction::List(which) = options.action;
    list::<Copy>(&mut Api::connect(&options.dir).await?, "/v1/copies", &which).await
}

/// A row of a table.
trait Row: Serialize + DeserializeOwned {
    const HEADER: &'static [&'static str];

    fn cells(&self) -> Vec<String>;
}

async fn list<T: Row>(api: &mut Api, path: &str, which: &Which) -> Result<()> {
    let mut query = Vec::new();
    query.extend(which.limit.map(|n| format!("limit={n}")));
    query.extend(which.after.as_ref().map(|after| format!("after={}", percent_encode(after))));
    let path = format!("{path}?{}", query.join("&"));
    let listing: Listing<T> = api.call(Method::GET, &path, None::<&()>).await?;
    if which.json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        print!("{}", render(&listing));
    }
    Ok(())
}

fn render<T: Row>(listing: &Listing<T>) -> String {
    let header = T::HEADER.iter().map(|h| (*h).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(listing.rows.iter().map(|row| row.cells().into_iter().map(cut).collect()))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..T::HEADER.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    if let Some(next) = &listing.next {
        let at_least = if listing.more_uncounted { "at least " } else { "" };
        out.push_str(&format!("{at_least}{} more (go on with --after {next})\n", listing.more));
    }
    out
}

/// Long names of clients end in dots; JSON has them whole. Paths are never cut.
fn cut(cell: String) -> String {
    if cell.starts_with('/') || cell.contains(":/") || cell.chars().count() <= CELL_MAX {
        return cell;
    }
    let head: String = cell.chars().take(CELL_MAX - 1).collect();
    format!("{head}…")
}

fn heard(lease: Option<&Lease>) -> [String; 2] {
    let Some(lease) = lease else { return ["-".to_owned(), "-".to_owned()] };
    let heard = lease.heard_seconds_ago.map_or("not since start".to_owned(), |s| format!("{s} s ago"));
    let left = match lease.left_seconds {
        left @ 0.. => format!("{left} s left"),
        lapsed => format!("lapsed {} s ago", lapsed.unsigned_abs()),
    };
    [heard, left]
}

/// Seconds as people say them: the two largest units.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn or_dash(cell: Option<&str>) -> String {
    match cell {
        None | Some("") => "-".to_owned(),
        Some(cell) => cell.to_owned(),
    }
}

fn path(file: &File) -> String {
    match (&file.volume, &file.path) {
        (Some(volume), Some(path)) => format!("{volume}:{path}"),
        (Some(volume), None) => format!("{volume}:?{} (no name)", file.inode),
        (None, _) => format!("?{} (removed)", file.inode),
    }
}

fn holder(h: &Holder) -> Vec<String> {
    let mut cells = vec![
        h.protocol.clone(),
        or_dash(h.client.as_deref()),
        or_dash(Some(&h.name)),
        or_dash(h.address.as_deref()),
    ];
    cells.extend(heard(h.lease.as_ref()));
    cells
}

impl Row for Client {
    const HEADER: &'static [&'static str] = &[
        "client",
        "version",
        "name",
        "address",
        "set up by",
        "heard",
        "lease",
        "sessions",
        "states",
        "implementation",
    ];

    fn cells(&self) -> Vec<String> {
        let [heard, lease] = heard(self.lease.as_ref());
        let lease = if self.confirmed { lease } else { format!("{lease}, unconfirmed") };
        vec![
            self.id.clone(),
            self.protocol.clone(),
            or_dash(Some(&self.name)),
            or_dash(self.address.as_deref()),
            or_dash(Some(&self.principal)),
            heard,
            lease,
            self.sessions.to_string(),
            self.states.to_string(),
            or_dash(Some(&self.implementation)),
        ]
    }
}

impl Row for Open {
    const HEADER: &'static [&'static str] = &[
        "state", "version", "client", "name", "address", "heard", "lease", "age", "access", "denies", "file",
        "owner",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.state.map_or("-".to_owned(), |n| n.to_string())];
        cells.extend(holder(&self.holder));
        cells.push(age(self.age_seconds));
        cells.push(if self.confirmed {
            self.access.clone()
        } else {
            format!("{}, unconfirmed", self.access)
        });
        cells.extend([self.deny.clone(), path(&self.file), self.holder.owner.clone()]);
        cells
    }
}

impl Row for Lock {
    const HEADER: &'static [&'static str] =
        &["version", "client", "name", "address", "heard", "lease", "age", "lock", "bytes", "file", "owner"];

    fn cells(&self) -> Vec<String> {
        let mut cells = holder(&self.holder);
        cells.push(age(self.age_seconds));
        let mode = if self.exclusive { "exclusive" } else { "shared" };
        cells.push(if self.waits { format!("waits for {mode}") } else { mode.to_owned() });
        cells.push(match self.last {
            Some(last) => format!("{}-{last}", self.first),
            None => format!("{}-end", self.first),
        });
        cells.extend([path(&self.file), self.holder.owner.clone()]);
        cells
    }
}

impl Row for Delegation {
    const HEADER: &'static [&'static str] =
        &["state", "version", "client", "name", "address", "heard", "lease", "age", "kind", "phase", "file"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.state.to_string()];
        cells.extend(holder(&self.holder));
        cells.push(age(self.age_seconds));
        let times = if self.timestamps { ", with times" } else { "" };
        cells.extend([format!("{}{times}", self.kind), self.phase.clone(), path(&self.file)]);
        cells
    }
}

impl Row for Copy {
    const HEADER: &'static [&'static str] = &[
        "state", "version", "client", "name", "address", "heard", "lease", "age", "copied", "of", "phase",
        "from", "to",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.state.to_string()];
        cells.extend(holder(&self.holder));
        cells.push(age(self.age_seconds));
        cells.extend([self.copied.to_string(), self.of.to_string(), self.phase.clone()]);
        cells.extend([path(&self.from), path(&self.to)]);
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_says_what_is_left_out_and_where_it_goes_on() {
        let lock = Lock {
            holder: Holder {
                protocol: "nlm".into(),
                client: None,
                name: "n".repeat(100),
                address: None,
                lease: None,
                owner: "7/x".into(),
            },
            file: File { inode: 9, volume: Some("default".into()), path: Some("/a/b".into()) },
            first: 3,
            last: None,
            exclusive: true,
            waits: true,
            age_seconds: 3700,
        };
        let text =
            render(&Listing { rows: vec![lock], more: 2, more_uncounted: true, next: Some("f9.1".into()) });
        assert!(
            text.contains("nnn…  -")
                && text.contains("1 h 1 min  waits for exclusive  3-end  default:/a/b  7/x"),
            "{text}"
        );
        assert!(text.ends_with("at least 2 more (go on with --after f9.1)\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() < 300), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_invented() {
        assert_eq!(heard(None), ["-", "-"]);
        assert_eq!([0, 61, 86_399, 90_000].map(age), ["0 s", "1 min 1 s", "23 h 59 min", "1 d 1 h"]);
        let lapsed = Lease { heard_seconds_ago: None, left_seconds: -5 };
        assert_eq!(heard(Some(&lapsed)), ["not since start", "lapsed 5 s ago"]);
        assert_eq!(path(&File { inode: 4, volume: None, path: None }), "?4 (removed)");
    }
}

//! One client with its part of the file system: makes load, and verifies after each restart.

use crate::choice::{self, Mix};
use crate::client::{Call, Client, decode};
use crate::model::{Kind, Model, Op, ROOT, Seen, Tree};
use crate::replies::{self, name};
use atoll_proto::nfs3::{
    Commit3Args, DirOpArgs3, FileHandle, FileType3, GetAttr3Args, Lookup3Args, NfsStat3, Read3Args,
    ReadDirPlus3Args, ReadLink3Args, call,
};
use atoll_proto::rpc::Procedure;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whether the server is dead.
pub(crate) type IsDead = Arc<dyn Fn() -> bool + Send + Sync>;

/// How long a reply is waited for while the server lives.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long replies are taken after its death: what it says then counts as well.
const LAST_WORDS: Duration = Duration::from_millis(15);
/// Pause before a call is sent again that the server could not do yet.
const RETRY: Duration = Duration::from_millis(5);
/// Answered calls that are remembered, to be sent again.
const REMEMBERED: usize = 40;
/// Of these, how many are sent again after a restart.
const REPEATED: usize = 4;
/// Handles of removed objects that are remembered.
const GONE: usize = 8;
/// Bytes of one READ.
const READ: u32 = 256 << 10;

/// What ends a client's work early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The server died, as intended.
    Dead,
    /// The server did what it must not.
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

/// A call without an answer.
struct InFlight {
    call: Call,
    op: Op,
    /// Its effect was seen: the model has it.
    seen: bool,
}

pub(crate) struct Worker {
    prefix: String,
    rng: SmallRng,
    client: Client,
    model: Model,
    is_dead: IsDead,
    in_flight: Option<InFlight>,
    answered: VecDeque<(Call, Op, Bytes)>,
    gone: VecDeque<FileHandle>,
    mix: Mix,
    /// Operations that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Calls without an answer whose effect was there after a restart, and those whose was not.
    pub(crate) resolved: [u64; 2],
}

impl Worker {
    pub(crate) fn new(number: u8, seed: u64, mix: Mix) -> Self {
        Self {
            prefix: format!("w{number}."),
            rng: SmallRng::seed_from_u64(seed ^ (u64::from(number) << 56)),
            client: Client::new(number),
            model: Model::new(),
            is_dead: Arc::new(|| true),
            in_flight: None,
            answered: VecDeque::new(),
            gone: VecDeque::new(),
            mix,
            acknowledged: 0,
            resolved: [0; 2],
        }
    }

    /// From now on talks to this server.
    pub(crate) fn point_at(&mut self, server: SocketAddr, is_dead: IsDead) {
        self.client.point_at(server);
        self.is_dead = is_dead;
    }

    /// Sends a call, waits for its reply.
    async fn exchange(&mut self, call: &Call) -> Result<Bytes, Stop> {
        let is_dead = self.is_dead.clone();
        let death = async {
            while !is_dead() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(LAST_WORDS).await;
        };
        let answer = tokio::select! {
            answer = self.client.exchange(call) => Some(answer),
            () = death => None,
            () = tokio::time::sleep(PATIENCE) => {
                return Err(Stop::Wrong(format!("no answer within {PATIENCE:?}")));
            }
        };
        match answer {
            None => Err(Stop::Dead),
            Some(Ok(reply)) => Ok(reply),
            Some(Err(error)) => {
                tokio::time::sleep(LAST_WORDS).await;
                if (self.is_dead)() {
                    return Err(Stop::Dead);
                }
                Err(Stop::Wrong(format!("the connection failed while the server should be alive: {error}")))
            }
        }
    }

    async fn ask<P: Procedure>(&mut self, args: &P::Args) -> Result<P::Res, Stop> {
        let call = self.client.encode::<P>(args);
        let reply = self.exchange(&call).await?;
        decode::<P>(reply).map_err(|e| self.unless_dead(e))
    }

    /// A dying server may fail anything.
    fn unless_dead(&self, what: impl Into<String>) -> Stop {
        if (self.is_dead)() { Stop::Dead } else { Stop::Wrong(what.into()) }
    }

    /// Changes things until the server dies, or `operations` are done.
    pub(crate) async fn load(&mut self, operations: u64) -> Result<(), Stop> {
        for _ in 0..operations {
            if (self.is_dead)() {
                return Err(Stop::Dead);
            }
            if self.rng.random_ratio(1, 12) {
                self.read_something().await?;
            }
            let op = choice::next(&mut self.rng, &mut self.model, &self.prefix, self.mix);
            let call = replies::encode(&mut self.client, &self.model, &op);
            self.in_flight = Some(InFlight { call, op, seen: false });
            self.finish_in_flight().await?;
        }
        Ok(())
    }

    /// Sends the call in flight until it is answered, and takes the answer into the model.
    async fn finish_in_flight(&mut self) -> Result<(), Stop> {
        let Some(InFlight { call, op, seen }) = &self.in_flight else { return Ok(()) };
        let (call, op, seen) = (call.clone(), op.clone(), *seen);
        let (told, reply) = loop {
            let reply = self.exchange(&call).await?;
            match replies::read(&op, reply.clone())
                .map_err(|e| self.unless_dead(format!("{op:.200?}: {e}")))?
            {
                Ok(told) => break (told, reply),
                Err(NfsStat3::Jukebox) => tokio::time::sleep(RETRY).await,
                Err(status) => return Err(self.unless_dead(format!("{} failed: {status:?}", brief(&op)))),
            }
        };
        self.in_flight = None;
        self.acknowledged += 1;
        if let Op::Remove { dir, name } | Op::RemoveDir { dir, name } = &op
            && let Some(node) = self.model.names.get(&(*dir, name.clone()))
            && self.model.links(*node) == 1
            && !seen
        {
            self.gone.extend(self.model.nodes[node].handle);
            if self.gone.len() > GONE {
                self.gone.pop_front();
            }
        }
        if !seen {
            self.model.apply(&op, Some(&told));
        }
        if let Op::Create { node, .. } | Op::MakeDir { node, .. } | Op::SymLink { node, .. } = &op {
            let known = self.model.nodes[node].handle;
            match (known, told.handle) {
                (Some(known), Some(told)) if known != told => {
                    return Err(Stop::Wrong(format!("{} was answered with another handle", brief(&op))));
                }
                (None, _) => self.look_up(&op).await?,
                _ => {}
            }
        }
        // UNSTABLE data may go, and their outcome with them; COMMIT may be repeated.
        if !matches!(op, Op::Write { stable: false, .. } | Op::Commit { .. }) {
            self.answered.push_back((call, op, reply));
            if self.answered.len() > REMEMBERED {
                self.answered.pop_front();
            }
        }
        Ok(())
    }

    /// A server need not tell the handle of what it created (RFC 1813 §3.3.8).
    async fn look_up(&mut self, op: &Op) -> Result<(), Stop> {
        let (Op::Create { dir, name: n, node, .. }
        | Op::MakeDir { dir, name: n, node }
        | Op::SymLink { dir, name: n, node, .. }) = op
        else {
            return Ok(());
        };
        let dir = self.model.nodes[dir].handle.expect("was created in");
        let what = DirOpArgs3 { dir, name: name(n) };
        let found = self.ask::<call::Lookup>(&Lookup3Args { what }).await?;
        let found = found.map_err(|e| self.unless_dead(format!("LOOKUP of {n}: {:?}", e.status)))?;
        self.model.nodes.get_mut(node).expect("was created").handle = Some(found.object);
        Ok(())
    }

    /// Reads a file while nothing is wrong: it shows the last bytes written.
    async fn read_something(&mut self) -> Result<(), Stop> {
        let files: Vec<_> =
            self.model.nodes.iter().filter(|(_, n)| matches!(n.kind, Kind::File(_))).collect();
        if files.is_empty() {
            return Ok(());
        }
        let (id, node) = files[self.rng.random_range(0..files.len())];
        let (id, handle) = (*id, node.handle.expect("handles are known between operations"));
        let data = self.read_file(handle).await?;
        if data != self.model.nodes[&id].content().now() {
            return Err(self.unless_dead("a READ showed other bytes than were written last"));
        }
        Ok(())
    }

    async fn read_file(&mut self, file: FileHandle) -> Result<Vec<u8>, Stop> {
        let mut data = Vec::new();
        loop {
            let args = Read3Args { file, offset: data.len() as u64, count: READ };
            match self.ask::<call::Read>(&args).await? {
                Ok(ok) => {
                    data.extend_from_slice(&ok.data);
                    if ok.eof {
                        return Ok(data);
                    }
                }
                Err(e) if e.status == NfsStat3::Jukebox => tokio::time::sleep(RETRY).await,
                Err(e) => return Err(self.unless_dead(format!("READ failed: {:?}", e.status))),
            }
        }
    }

    /// Verifies all that this client knows, and finishes the call that was in flight. `graceful`: the server was stopped in
    /// peace, so nothing may be missing, UNSTABLE data and verifier included.
    pub(crate) async fn verify(&mut self, graceful: bool) -> Result<(), Stop> {
        self.mount().await?;
        let found = self.tree().await?;
        let as_told = self.model.allows(&found);
        let mut with_it = None;
        if let Some(InFlight { op, seen: false, .. }) = &self.in_flight
            && !matches!(op, Op::Commit { .. })
        {
            let mut model = self.model.clone();
            model.apply(op, None);
            with_it = Some((model.allows(&found), model));
        }
        match (as_told, with_it) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => self.resolved[1] += 1,
            (Err(_), Some((Ok(()), model))) => {
                self.resolved[0] += 1;
                self.model = model;
                if let Some(in_flight) = &mut self.in_flight {
                    // What of UNSTABLE data was there counts, but the answer still brings the rest.
                    in_flight.seen = !matches!(in_flight.op, Op::Write { stable: false, .. });
                }
            }
            (Err(e), None) => return Err(Stop::Wrong(e)),
            (Err(e), Some((Err(or), _))) => {
                let op = self.in_flight.as_ref().map(|f| brief(&f.op));
                return Err(Stop::Wrong(format!("{e}; or, if {} was done: {or}", op.unwrap_or_default())));
            }
        }
        if graceful {
            self.nothing_lost(&found)?;
        }
        self.model.settle(&found);
        self.gone_is_stale().await?;
        if self.in_flight.is_some() {
            self.finish_in_flight().await?;
            let found = self.tree().await?;
            self.model.allows(&found).map_err(|e| format!("after the call was repeated: {e}"))?;
        }
        self.repeat_answered().await
    }

    fn nothing_lost(&self, found: &Tree) -> Result<(), Stop> {
        for (path, id) in self.model.paths() {
            let node = &self.model.nodes[&id];
            if let Kind::File(content) = &node.kind
                && content.now() != found[&path].data
            {
                return Err(Stop::Wrong(format!("{path}: a graceful stop lost UNSTABLE data")));
            }
            if node.shown.is_some_and(|s| s.mtime != found[&path].attr.mtime) {
                return Err(Stop::Wrong(format!("{path}: a graceful stop changed mtime")));
            }
        }
        Ok(())
    }

    async fn mount(&mut self) -> Result<(), Stop> {
        let call = self
            .client
            .encode::<atoll_proto::mount::v3::call::Mnt>(&atoll_proto::mount::DirPath::from_static(b"/"));
        let reply = self.exchange(&call).await?;
        let res = decode::<atoll_proto::mount::v3::call::Mnt>(reply).map_err(|e| self.unless_dead(e))?;
        let handle = res.map_err(|e| self.unless_dead(format!("MNT: {e:?}")))?.handle;
        let root = self.model.nodes.get_mut(&ROOT).expect("the root is always there");
        match root.handle.replace(handle) {
            Some(before) if before != handle => Err(Stop::Wrong("the root has another handle".to_owned())),
            _ => Ok(()),
        }
    }

    /// Removed objects stay removed.
    async fn gone_is_stale(&mut self) -> Result<(), Stop> {
        for object in self.gone.clone() {
            match self.ask::<call::GetAttr>(&GetAttr3Args { object }).await? {
                Err(e) if e.status == NfsStat3::Stale => {}
                Err(e) => {
                    return Err(self.unless_dead(format!("GETATTR of a removed object: {:?}", e.status)));
                }
                Ok(_) => return Err(Stop::Wrong("a removed object is there again".to_owned())),
            }
        }
        Ok(())
    }

    /// Calls that were answered get the same answer, byte for byte, and are not executed again.
    async fn repeat_answered(&mut self) -> Result<(), Stop> {
        for n in 0..REPEATED.min(self.answered.len()) {
            // The last one always.
            let back = if n == 0 { 0 } else { self.rng.random_range(0..self.answered.len()) };
            let (call, op, first) = self.answered[self.answered.len() - 1 - back].clone();
            let again = self.exchange(&call).await?;
            if again != first {
                let (was, is) = (replies::read(&op, first), replies::read(&op, again));
                return Err(self.unless_dead(format!(
                    "{} sent again was answered differently: first {was:?}, now {is:?}",
                    brief(&op)
                )));
            }
        }
        if self.answered.is_empty() {
            return Ok(());
        }
        let found = self.tree().await?;
        Ok(self.model.allows(&found).map_err(|e| format!("after answered calls were repeated: {e}"))?)
    }

    /// Everything of this client's, as the server shows it.
    async fn tree(&mut self) -> Result<Tree, Stop> {
        let paths = self.model.paths();
        let root = self.model.nodes[&ROOT].handle.expect("is mounted");
        let mut tree = Tree::new();
        let mut dirs = vec![(String::new(), root)];
        while let Some((path, dir)) = dirs.pop() {
            for (name, handle) in self.list(dir).await? {
                if path.is_empty() && !name.starts_with(&self.prefix) {
                    continue;
                }
                let path = format!("{path}/{name}");
                let attr = self.ask::<call::GetAttr>(&GetAttr3Args { object: handle }).await?;
                let attr = attr.map_err(|e| self.unless_dead(format!("{path}: GETATTR: {:?}", e.status)))?;
                let mut seen = Seen { handle, attr: attr.obj_attributes, data: Vec::new(), verifier: None };
                match seen.attr.file_type {
                    FileType3::Directory => dirs.push((path.clone(), handle)),
                    FileType3::SymLink => {
                        let text = self.ask::<call::ReadLink>(&ReadLink3Args { symlink: handle }).await?;
                        let text =
                            text.map_err(|e| self.unless_dead(format!("{path}: READLINK: {:?}", e.status)))?;
                        seen.data = text.data.to_vec();
                    }
                    _ => {
                        let known = paths.get(&path).map(|id| &self.model.nodes[id].kind);
                        if let Some(Kind::File(content)) = known
                            && content.has_pending()
                        {
                            let args = Commit3Args { file: handle, offset: 0, count: 0 };
                            let done = self.ask::<call::Commit>(&args).await?;
                            let done = done
                                .map_err(|e| self.unless_dead(format!("{path}: COMMIT: {:?}", e.status)))?;
                            seen.verifier = Some(u64::from_be_bytes(done.verf));
                        }
                        seen.data = match self.read_file(handle).await {
                            Err(Stop::Wrong(e)) => return Err(Stop::Wrong(format!("{path}: {e}"))),
                            other => other?,
                        };
                        if seen.data.len() as u64 != seen.attr.size {
                            return Err(Stop::Wrong(format!(
                                "{path}: size and bytes that can be read differ"
                            )));
                        }
                    }
                }
                tree.insert(path, seen);
            }
        }
        Ok(tree)
    }

    async fn list(&mut self, dir: FileHandle) -> Result<Vec<(String, FileHandle)>, Stop> {
        let (mut names, mut cookie, mut cookieverf) = (Vec::new(), 0, [0; 8]);
        loop {
            let args = ReadDirPlus3Args { dir, cookie, cookieverf, dircount: 4096, maxcount: 8192 };
            let page = self.ask::<call::ReadDirPlus>(&args).await?;
            let page = page.map_err(|e| self.unless_dead(format!("READDIRPLUS: {:?}", e.status)))?;
            cookieverf = page.cookieverf;
            for entry in page.entries.iter() {
                cookie = entry.cookie;
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                if let Some(handle) = entry.name_handle
                    && name != "."
                    && name != ".."
                {
                    names.push((name, handle));
                }
            }
            if page.eof {
                return Ok(names);
            }
        }
    }

    /// Removes everything, for a look at what is left then.
    pub(crate) async fn remove_all(&mut self) -> Result<(), Stop> {
        while let Some(((dir, name), node)) =
            self.model.names.iter().next_back().map(|(k, n)| (k.clone(), *n))
        {
            // Leaves first: a directory is older than what is below it, unless that was moved there.
            let mut at = (dir, name, node);
            while let Some((name, node)) = self.model.children(at.2).next() {
                at = (at.2, name.to_owned(), node);
            }
            let (dir, name, node) = at;
            let op = match self.model.nodes[&node].kind {
                Kind::Dir => Op::RemoveDir { dir, name },
                _ => Op::Remove { dir, name },
            };
            let call = replies::encode(&mut self.client, &self.model, &op);
            self.in_flight = Some(InFlight { call, op, seen: false });
            self.finish_in_flight().await?;
        }
        Ok(())
    }
}

/// An operation without its data.
fn brief(op: &Op) -> String {
    match op {
        Op::Write { node, offset, data, stable } => {
            format!("Write {{ node: {node}, offset: {offset}, {} bytes, stable: {stable} }}", data.len())
        }
        other => format!("{other:?}"),
    }
}

//! Clients of NFSv4 and NLM: their listing, and eviction.

use super::Service;
use super::states::{Growing, STEP, hex, protocol, text};
use crate::admin::states::{Client, Evicted, Listing, Range};
use crate::data_dir;
use anyhow::{Context, Result};
use atoll_base::id::Ino;
use atoll_lockd::NlmClient;
use atoll_meta::nfs4::{ClientId, Principal};
use atoll_meta::{FsError, MetadataService};
use atoll_model::read;

/// A client of either kind.
enum Listed {
    V4(atoll_meta::nfs4::Client),
    /// With the number of files.
    Nlm(NlmClient, u64),
}

impl Service {
    /// NFSv4 clients in order of id, then those of NLM that have locks or share reservations.
    pub(crate) async fn list_clients(&self, range: &Range) -> Result<Listing<Client>> {
        let _one = self.listing.lock().await;
        let mut rows = Growing::new(range)?;
        let (mut after, nlm) = match &range.after {
            None => (Some(ClientId(0)), None),
            Some(place) => match nlm_place(place)? {
                Some(client) => (None, Some(client)),
                None => (Some(ClientId(client_id(place)?)), None),
            },
        };
        while let Some(from) = after
            && !rows.is_enough()
        {
            let clients = self.node.meta.clients(from, STEP).await?;
            after = clients.last().map(|last| last.id);
            for client in clients {
                rows.push(|| hex(client.id), || Listed::V4(client.clone()));
            }
            tokio::task::yield_now().await;
        }
        self.walk_nlm(nlm, |client, files| {
            rows.push(|| place_of(client), || Listed::Nlm(client.clone(), files));
            !rows.is_enough()
        })
        .await?;
        Ok(rows.end(|listed| match listed {
            Listed::V4(client) => Client {
                id: hex(client.id),
                protocol: protocol(client.minor),
                name: text(&client.owner),
                address: client.about.address.map(|a| a.to_string()),
                implementation: text(&client.about.implementation),
                principal: match client.principal {
                    Principal::Nobody => "nobody".to_owned(),
                    Principal::Sys(uid) => format!("uid {uid}"),
                },
                confirmed: client.confirmed,
                sessions: client.sessions.into(),
                states: client.states,
                lease: Some(self.lease(client.id)),
            },
            Listed::Nlm(client, files) => Client {
                id: nlm_id(&client),
                protocol: "nlm".to_owned(),
                name: text(client.name()),
                address: client.address().map(|a| a.to_string()),
                implementation: String::new(),
                principal: String::new(),
                confirmed: true,
                sessions: 0,
                states: files,
                lease: None,
            },
        }))
    }

    /// Goes through the clients of NLM after one, with the number of files that each has something in, until `each` wants no more.
    async fn walk_nlm(
        &self,
        after: Option<NlmClient>,
        mut each: impl FnMut(&NlmClient, u64) -> bool,
    ) -> Result<(), FsError> {
        let mut place = after.map(|client| (client, Ino(u64::MAX)));
        let mut last: Option<(NlmClient, u64)> = None;
        loop {
            let walked = self.node.meta.with_state(|kv| read::nlm_files(kv, place.as_ref(), STEP)).await?;
            for (client, _) in walked.found {
                match &mut last {
                    Some((same, files)) if *same == client => *files += 1,
                    _ => {
                        if let Some((former, files)) = last.replace((client, 1))
                            && !each(&former, files)
                        {
                            return Ok(());
                        }
                    }
                }
            }
            if walked.next.is_none() {
                break;
            }
            place = walked.next;
            tokio::task::yield_now().await;
        }
        if let Some((client, files)) = last {
            each(&client, files);
        }
        Ok(())
    }

    /// Ends a client.
    pub(crate) async fn evict_client(&self, id: &str) -> Result<Evicted> {
        if id.starts_with(NLM) {
            return self.evict_nlm(id).await;
        }
        let client = ClientId(client_id(id)?);
        let freed = self.engine.evict(client).await.context("the client could not be evicted")?;
        let freed =
            freed.with_context(|| format!("there is no NFSv4 client {id} (see `atoll client list`)"))?;
        Ok(Evicted {
            sessions: freed.sessions,
            opens: freed.opens,
            lock_states: freed.lock_states,
            delegations: freed.delegations,
            files: 0,
        })
    }

    async fn evict_nlm(&self, id: &str) -> Result<Evicted> {
        let _one = self.listing.lock().await;
        let mut found = None;
        self.walk_nlm(None, |client, files| {
            if nlm_id(client) == id {
                found = Some((client.clone(), files));
            }
            found.is_none()
        })
        .await?;
        let (client, files) = found
            .with_context(|| format!("there is no NLM client {id} with locks (see `atoll client list`)"))?;
        self.engine.evict_nlm(client).await.context("the client's locks could not be freed")?;
        Ok(Evicted { sessions: 0, opens: 0, lock_states: 0, delegations: 0, files })
    }
}

/// What the ids of NLM clients begin with.
const NLM: &str = "nlm:";

fn nlm_id(client: &NlmClient) -> String {
    let name = text(client.name());
    match client.address() {
        Some(address) => format!("{NLM}{name}@{address}"),
        None => format!("{NLM}{name}"),
    }
}

/// A place in the listing of clients, after one of NLM: whatever bytes its name has, the place is a word.
fn place_of(client: &NlmClient) -> String {
    let name = data_dir::hex(client.name());
    format!("n{name}/{}", client.address().map(|a| a.to_string()).unwrap_or_default())
}

/// That client, if the place is one.
fn nlm_place(place: &str) -> Result<Option<NlmClient>> {
    let Some((name, address)) = place.strip_prefix('n').and_then(|rest| rest.split_once('/')) else {
        return Ok(None);
    };
    let words = || format!("{place:?} is no place in this listing");
    let (pairs, rest) = name.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let name: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let name = name.filter(|_| rest.is_empty()).with_context(words)?;
    let address = if address.is_empty() { None } else { Some(address.parse().with_context(words)?) };
    Ok(Some(NlmClient::new(name, address).with_context(words)?))
}

fn client_id(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).ok().with_context(|| {
        format!("{text:?} is no client id: hexadecimal digits, as in the first column of `atoll client list`")
    })
}

//! Where the primary is, as the sentinels say: <https://redis.io/docs/latest/develop/reference/sentinel-clients/>.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;

use super::CacheError;
use super::frame::read_reply;
use super::link::{LinkOptions, stream};
use crate::config::SentinelUrl;
use crate::model::{Reply, Request};

/// Where a primary is: host and TCP port.
pub(super) type Address = (String, u16);

/// The address that the sentinels gave last; clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastKnown(Arc<Mutex<Option<Address>>>);

impl LastKnown {
    fn get(&self) -> Option<Address> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, address: &Address) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(address) {
            let (host, port) = address;
            tracing::info!(host, port, "the sentinels name the primary");
            *known = Some(address.clone());
        }
    }
}

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    address: Address,
    /// The number of the fail-over that made it the primary: the highest is the latest.
    epoch: u64,
}

/// Asks all sentinels at once. The latest word counts, as soon as most of them have answered or
/// half of the time to connect is over. If none answers, the primary is where it was last: what it
/// holds is compared with the record anyway.
pub(super) async fn discover(
    options: &LinkOptions,
    url: &SentinelUrl,
) -> Result<Address, CacheError> {
    let limit = options.connect_timeout / 2;
    let mut asked: FuturesUnordered<_> = url
        .sentinels
        .iter()
        .map(|sentinel| ask(options, url, sentinel, limit))
        .collect();
    let most = url.sentinels.len() / 2 + 1;
    let mut words: Vec<Word> = Vec::new();
    let mut failure = CacheError::Unreachable("no sentinel answered".into());
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(word) => words.push(word),
            Err(error) => failure = error,
        }
        if words.len() >= most {
            break;
        }
    }
    match words.into_iter().max_by_key(|word| word.epoch) {
        Some(word) => {
            options.last_known.set(&word.address);
            Ok(word.address)
        }
        None => options.last_known.get().ok_or(failure),
    }
}

async fn ask(
    options: &LinkOptions,
    url: &SentinelUrl,
    sentinel: &Address,
    limit: Duration,
) -> Result<Word, CacheError> {
    let asking = async {
        let (mut reader, mut writer) = stream(options, sentinel, url.uses_tls).await?;
        let mut requests = Vec::new();
        if let Some(password) = &options.sentinel_password {
            let user = options.sentinel_user.as_deref().unwrap_or("default");
            requests.push(Request::from_args(&["AUTH", user, password]));
        }
        let (name, master) = ("GET-MASTER-ADDR-BY-NAME", url.master.as_str());
        requests.push(Request::from_args(&["SENTINEL", name, master]));
        requests.push(Request::from_args(&["SENTINEL", "MASTER", master]));
        let mut out = BytesMut::new();
        for request in &requests {
            out.put_slice(request.raw());
        }
        writer.write_all(&out).await.map_err(lost)?;
        let mut buffer = BytesMut::new();
        let mut replies = Vec::new();
        for _ in &requests {
            replies.push(read_reply(&mut reader, &mut buffer).await?);
        }
        let epoch = replies.pop().unwrap_or(Reply::Null);
        let address = replies.pop().unwrap_or(Reply::Null);
        word(&address, &epoch).map_err(|text| {
            CacheError::Unreachable(format!("the sentinel {}:{} {text}", sentinel.0, sentinel.1))
        })
    };
    tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(CacheError::Unreachable("a sentinel took too long".into())))
}

fn lost(error: std::io::Error) -> CacheError {
    CacheError::Unreachable(error.to_string())
}

/// What the two replies say.
fn word(address: &Reply, details: &Reply) -> Result<Word, String> {
    if let Some(Reply::Error(text)) = [address, details]
        .into_iter()
        .find(|reply| matches!(reply, Reply::Error(_)))
    {
        return Err(format!("says: {}", String::from_utf8_lossy(text)));
    }
    let Some(parts) = texts(address) else {
        return Err("does not know this master's name".to_owned());
    };
    let (Some(host), Some(port)) = (parts.first(), parts.get(1).and_then(|p| p.parse().ok()))
    else {
        return Err("gave no address".to_owned());
    };
    let details = texts(details).unwrap_or_default();
    let epoch = details
        .chunks(2)
        .find(|pair| pair[0] == "config-epoch")
        .and_then(|pair| pair.get(1)?.parse().ok());
    Ok(Word {
        address: (host.clone(), port),
        epoch: epoch.unwrap_or(0),
    })
}

/// An array of texts.
fn texts(reply: &Reply) -> Option<Vec<String>> {
    let Reply::Array(items) = reply else {
        return None;
    };
    let text = |item: &Reply| match item {
        Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    Some(items.iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(texts: &[&'static str]) -> Reply {
        let bulk = |text: &&'static str| Reply::Bulk(text.as_bytes().into());
        Reply::Array(texts.iter().map(bulk).collect())
    }

    #[test]
    fn address_and_epoch_are_read_from_the_two_replies() {
        let details = array(&["name", "main", "ip", "10.0.0.9", "config-epoch", "7"]);
        let found = word(&array(&["10.0.0.1", "6379"]), &details).unwrap();
        assert_eq!(found.address, ("10.0.0.1".to_owned(), 6379));
        assert_eq!(found.epoch, 7);
        assert!(word(&Reply::Null, &details).is_err());
        let refusal = Reply::error("ERR No such master with that name");
        let refused = word(&Reply::Null, &refusal).unwrap_err();
        assert!(refused.contains("No such master"), "{refused}");
    }
}

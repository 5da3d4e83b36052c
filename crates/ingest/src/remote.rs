//! Shards on S3-compatible stores and web servers: the one place that knows object_store and tokio.

use std::{
    error::Error,
    fmt,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    http::HttpBuilder, path::Path,
};
use tokio::runtime::Runtime;

use crate::{
    error::IngestError,
    store::{Part, Store, check_limit},
};

/// How often a request that waits looks whether the store was closed.
const CLOSING_LOOK: Duration = Duration::from_millis(200);

/// How long and how often a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Requests for the same bytes, at least 1.
    pub n_attempts: u32,
    /// After which a request has failed, however much of its answer has come.
    pub request_timeout: Duration,
    /// Between the first two attempts, at most; doubles from one to the next. Each pause is shortened by
    /// up to half, so that readers whose requests failed together do not come back together.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// Eight attempts of a minute each, with pauses of 0.1 s to 20 s.
    fn default() -> Self {
        Self {
            n_attempts: 8,
            request_timeout: Duration::from_secs(60),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(20),
        }
    }
}

/// The credentials for an S3-compatible store, and its endpoint. The binaries read them from the environment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Access {
    /// Address of the store; `None` for that of Amazon.
    pub endpoint: Option<String>,
    /// Region of the bucket; empty for us-east-1.
    pub region: String,
    /// Access key and secret; `None` asks without a signature.
    pub key_and_secret: Option<(String, String)>,
    /// Token of a session.
    pub token: Option<String>,
}

/// Without the secrets.
impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_signed = self.key_and_secret.is_some();
        f.debug_struct("S3Access")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("is_signed", &is_signed)
            .finish_non_exhaustive()
    }
}

/// A bucket or a web server.
///
/// A transient fault (5xx, 408, 429, a broken connection, a short body, a timeout) is retried, a permanent
/// one (401, 403, 404 and the like) is an error at once. The client's own retries are off, because they
/// neither cover a body that breaks off nor report how often they asked.
#[derive(Debug)]
pub struct Remote {
    address: String,
    client: Box<dyn ObjectStore>,
    prefix: Path,
    patience: Patience,
    runtime: Runtime,
    n_retries: AtomicU64,
    is_closed: AtomicBool,
}

impl Remote {
    /// The store at `s3://bucket/prefix`, `https://host/prefix` or `http://host/prefix`; `access` matters
    /// to the first only.
    ///
    /// # Errors
    /// If the address is none of these, or the client cannot be built.
    pub fn open(address: &str, access: &S3Access, patience: Patience) -> Result<Self, IngestError> {
        let unfit =
            |problem: String| IngestError::StoreUnfit { store: address.to_owned(), problem };
        let (client, prefix) = match address.split_once("://") {
            Some(("s3", path)) => {
                let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
                if bucket.is_empty() {
                    return Err(unfit("expected s3://bucket/prefix".to_owned()));
                }
                let client = s3(bucket, access).map_err(|error| unfit(causes(&error)))?;
                (client, Path::from(prefix))
            }
            Some(("http" | "https", _)) => {
                let builder = HttpBuilder::new().with_url(address).with_retry(no_retries());
                let client = builder.with_client_options(client_options(address)).build();
                let client = client.map_err(|error| unfit(causes(&error)))?;
                (Box::new(client) as Box<dyn ObjectStore>, Path::default())
            }
            _ => return Err(unfit("expected an address of s3://, https:// or http://".to_owned())),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unfit(error.to_string()))?;
        let (address, n_retries) = (address.to_owned(), AtomicU64::new(0));
        let is_closed = AtomicBool::new(false);
        Ok(Self { address, client, prefix, patience, runtime, n_retries, is_closed })
    }

    /// Requests so far that were made because one before them had failed.
    #[must_use]
    pub fn n_retries(&self) -> u64 {
        self.n_retries.load(Ordering::Relaxed)
    }

    async fn read_patiently(&self, key: &str, part: Part) -> Result<Vec<u8>, IngestError> {
        let mut pause = self.patience.first_pause;
        let mut attempt = 1;
        loop {
            let limit = self.patience.request_timeout;
            let (how, source) = match self.within(limit, self.ask(key, part)).await? {
                Some(Ok(bytes)) => return Ok(bytes),
                Some(Err(Fault::Stays(error))) => return Err(error),
                Some(Err(Fault::Passes(how, source))) => (how, source),
                None => {
                    (format!("with no whole answer within {limit:?}"), "it took too long".into())
                }
            };
            if attempt >= self.patience.n_attempts {
                return Err(IngestError::StoreFailed {
                    key: key.to_owned(),
                    store: self.address.clone(),
                    offset: part.offset(),
                    needed: part.to_string(),
                    attempts: attempt,
                    how,
                    source,
                });
            }
            let shortened = Retry {
                key,
                part,
                attempt,
                process_id: std::process::id(),
                n_before: self.n_retries(),
            }
            .spread(pause);
            tracing::debug!(key, %part, attempt, "again in {shortened:?}: the store answered {how}: {source}");
            self.within(shortened, std::future::pending::<()>()).await?;
            pause = (pause * 2).min(self.patience.longest_pause);
            attempt += 1;
            self.n_retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The future's output, or `None` after `limit`.
    async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>, IngestError> {
        let (mut future, mut left) = (pin!(future), limit);
        while !left.is_zero() {
            if self.is_closed.load(Ordering::Relaxed) {
                return Err(self.unfit("it was closed".to_owned()));
            }
            let slice = left.min(CLOSING_LOOK);
            if let Ok(output) = tokio::time::timeout(slice, future.as_mut()).await {
                return Ok(Some(output));
            }
            left -= slice;
        }
        Ok(None)
    }

    /// One request.
    async fn ask(&self, key: &str, part: Part) -> Result<Vec<u8>, Fault> {
        let range = match part {
            Part::All { .. } => None,
            Part::Range { offset, n_bytes } => {
                Some(GetRange::Bounded(offset..offset.saturating_add(n_bytes)))
            }
        };
        let path = Path::from(format!("{}/{key}", self.prefix));
        let options = GetOptions { range, ..GetOptions::default() };
        let answer = self.client.get_opts(&path, options).await;
        let answer = answer.map_err(|error| self.fault(key, error))?;
        let promised = answer.range.end - answer.range.start;
        match part {
            Part::All { limit } => {
                check_limit(self, key, promised, limit).map_err(Fault::Stays)?;
            }
            // The answer to a range that begins within the object ends with the object.
            Part::Range { n_bytes, .. } if promised != n_bytes => {
                return Err(Fault::Stays(self.too_short(key, part, promised)));
            }
            Part::Range { .. } => {}
        }
        let bytes = answer.bytes().await.map_err(|error| self.fault(key, error))?;
        if bytes.len() as u64 != promised {
            let how = format!("with {} of {promised} bytes", bytes.len());
            return Err(Fault::Passes(how, "the body is short".into()));
        }
        Ok(bytes.into())
    }

    fn too_short(&self, key: &str, part: Part, got: u64) -> IngestError {
        self.unfit(format!(
            "{key} is truncated: {part} needed at offset {}, got {got}; upload it again",
            part.offset()
        ))
    }

    fn unfit(&self, problem: String) -> IngestError {
        IngestError::StoreUnfit { store: self.address.clone(), problem }
    }

    fn fault(&self, key: &str, error: object_store::Error) -> Fault {
        let (key, store) = (key.to_owned(), self.address.clone());
        match error {
            object_store::Error::NotFound { .. } => {
                Fault::Stays(IngestError::StoreMissing { key, store })
            }
            object_store::Error::PermissionDenied { source, .. }
            | object_store::Error::Unauthenticated { source, .. } => {
                Fault::Stays(IngestError::StoreDenied { key, store, source })
            }
            object_store::Error::NotSupported { source } => Fault::Stays(self.unfit(format!(
                "it does not answer requests for a part of {key} ({source}); fetch the shards first"
            ))),
            object_store::Error::Generic { source, .. } => match status(&*source) {
                Some(416) => Fault::Stays(self.unfit(format!(
                    "{key} is truncated: it ends before the part that is needed; upload it again"
                ))),
                Some(code) if (400..500).contains(&code) && code != 408 && code != 429 => {
                    Fault::Stays(self.unfit(format!("it answers {code} to a request for {key}")))
                }
                Some(code) => Fault::Passes(format!("with status {code}"), source),
                None => Fault::Passes("while the answer came".to_owned(), source),
            },
            other => Fault::Stays(self.unfit(causes(&other))),
        }
    }
}

impl Store for Remote {
    fn address(&self) -> &str {
        &self.address
    }

    fn read(&self, key: &str, part: Part) -> Result<Vec<u8>, IngestError> {
        self.runtime.block_on(self.read_patiently(key, part))
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// A request that is to be made again.
#[derive(Debug, Clone, Copy)]
struct Retry<'a> {
    key: &'a str,
    part: Part,
    /// The attempt that failed.
    attempt: u32,
    process_id: u32,
    /// Retries of the process before.
    n_before: u64,
}

impl Retry<'_> {
    /// Half of a pause to all of it, another share for each request, attempt, process and number of retries
    /// before.
    fn spread(self, pause: Duration) -> Duration {
        let Self { key, part, attempt, process_id, n_before } = self;
        let text = format!("({process_id}, {n_before}) {attempt} {} {key}", part.offset());
        let [low, high, ..] = *blake3::hash(text.as_bytes()).as_bytes();
        let share = f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX);
        pause.mul_f64(0.5 + 0.5 * share)
    }
}

/// Why a request failed.
enum Fault {
    /// Asking again does not help.
    Stays(IngestError),
    /// It may: how it ended, and the reason.
    Passes(String, Box<dyn Error + Send + Sync>),
}

fn s3(bucket: &str, access: &S3Access) -> object_store::Result<Box<dyn ObjectStore>> {
    let region = if access.region.is_empty() { "us-east-1" } else { access.region.as_str() };
    let endpoint = access.endpoint.as_deref().unwrap_or("https://");
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_retry(no_retries())
        .with_client_options(client_options(endpoint))
        .with_skip_signature(access.key_and_secret.is_none());
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some((key, secret)) = &access.key_and_secret {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    if let Some(token) = &access.token {
        builder = builder.with_token(token);
    }
    Ok(Box::new(builder.build()?))
}

fn client_options(address: &str) -> ClientOptions {
    ClientOptions::new().with_allow_http(address.starts_with("http://")).with_timeout_disabled()
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The status of the answer. The client keeps the type that holds it to itself, so its text is what there
/// is; the tests hold it to this form.
fn status(error: &(dyn Error + 'static)) -> Option<u16> {
    let text = causes(error);
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// An error with its causes, where there is room for a text only.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let open = |address| Remote::open(address, &S3Access::default(), Patience::default());
        for address in ["s3://bucket", "s3://bucket/a/b", "https://host/a", "http://host"] {
            assert_eq!(open(address).unwrap().address(), address);
        }
        assert_eq!(open("s3://bucket/a/b/").unwrap().prefix.as_ref(), "a/b");
        for (address, expected) in [
            ("ftp://host/a", "expected an address of s3://, https:// or http://"),
            ("folder", "expected an address of s3://, https:// or http://"),
            ("s3:///a", "expected s3://bucket/prefix"),
        ] {
            let message = open(address).unwrap_err().to_string();
            assert_eq!(message, format!("store {address} cannot be used: {expected}"));
        }
    }

    #[test]
    fn pauses_are_spread_over_half_of_their_length() {
        let pause = Duration::from_secs(8);
        let part = |offset| Part::Range { offset, n_bytes: 1 };
        let shares = |of: &dyn Fn(u32) -> Duration| -> Vec<f64> {
            (0..400).map(|i| of(i).div_duration_f64(pause)).collect()
        };
        let retry = Retry { key: "key", part: part(0), attempt: 1, process_id: 1, n_before: 0 };
        let cases: [(&str, &dyn Fn(u32) -> Duration); 5] = [
            ("keys", &|i| Retry { key: &i.to_string(), ..retry }.spread(pause)),
            ("offsets", &|i| Retry { part: part(i.into()), ..retry }.spread(pause)),
            ("attempts", &|i| Retry { attempt: i, ..retry }.spread(pause)),
            ("processes", &|i| Retry { process_id: i, ..retry }.spread(pause)),
            ("retries before", &|i| Retry { n_before: i.into(), ..retry }.spread(pause)),
        ];
        for (name, of) in cases {
            let shares = shares(of);
            let mean = shares.iter().sum::<f64>() / 400.0;
            // The standard error of the mean of 400 is 0.0072.
            assert!((mean - 0.75).abs() < 0.03, "{name}: {mean}");
            assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)), "{name}: {shares:?}");
            assert!(shares.iter().any(|s| *s < 0.52) && shares.iter().any(|s| *s > 0.98), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let key_and_secret = Some(("key".to_owned(), "swordfish".to_owned()));
        let access =
            S3Access { key_and_secret, token: Some("t0ken".to_owned()), ..S3Access::default() };
        let remote = Remote::open("s3://bucket", &access, Patience::default()).unwrap();
        let shown = format!("{access:?} {remote:?}");
        assert!(shown.contains("is_signed: true"), "{shown}");
        assert!(!shown.contains("swordfish") && !shown.contains("t0ken"), "{shown}");
    }
}

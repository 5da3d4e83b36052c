//! Reaches stores, as whom the environment says.

use std::sync::Arc;

use moco_ingest::{IngestError, Store};

/// The store at `s3://bucket/prefix`, `https://host/prefix` or `http://host/prefix`. For S3 the
/// environment has `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` and
/// `AWS_ENDPOINT_URL`.
///
/// # Errors
/// If it is no such address, or the program was built without the feature `remote`.
#[cfg(feature = "remote")]
pub fn open_store(address: &str) -> Result<Arc<dyn Store>, IngestError> {
    use moco_ingest::{Patience, Remote, S3Access};
    let variable = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "credentials come from the environment")]
        let value = std::env::var(name);
        value.ok().filter(|value| !value.is_empty())
    };
    let key = variable("AWS_ACCESS_KEY_ID");
    let access = S3Access {
        endpoint: variable("AWS_ENDPOINT_URL"),
        region: variable("AWS_REGION").unwrap_or_default(),
        key_and_secret: key.zip(variable("AWS_SECRET_ACCESS_KEY")),
        token: variable("AWS_SESSION_TOKEN"),
    };
    Ok(Arc::new(Remote::open(address, &access, Patience::default())?))
}

/// No store: the program was built without the feature `remote`.
///
/// # Errors
/// Always; the error says how to build a program that reaches stores.
#[cfg(not(feature = "remote"))]
pub fn open_store(address: &str) -> Result<Arc<dyn Store>, IngestError> {
    let problem = "this build reaches no stores; \
                   start one that does by `cargo xtask --features remote STAGE`, for instance \
                   `cargo xtask --features remote pretrain`";
    Err(IngestError::StoreUnfit { store: address.to_owned(), problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_out_of_reach_is_named_with_what_to_do() {
        let expected = if cfg!(feature = "remote") {
            "store gs://bucket cannot be used: expected an address of s3://, https:// or http://"
        } else {
            "store gs://bucket cannot be used: this build reaches no stores; start one that does by \
             `cargo xtask --features remote STAGE`, for instance `cargo xtask --features remote pretrain`"
        };
        assert_eq!(open_store("gs://bucket").unwrap_err().to_string(), expected);
    }
}

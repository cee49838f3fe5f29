//! t
mod address;
mod allow;
mod client;
mod connection;
mod limits;
mod redirect;
mod request;
mod resolve;
mod response;
mod slots;
mod target;

pub use ipnet::IpNet;

pub use address::{AddressRefused, AddressRules};
pub use allow::Allow;
pub use client::{HttpClient, HttpClientBuilder, HttpSetupError};
pub use limits::{HttpCall, HttpLimits};
pub use request::HttpRequest;
pub use resolve::{Resolver, SystemResolver};
pub use response::HttpResponse;

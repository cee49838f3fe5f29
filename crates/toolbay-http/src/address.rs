//! Which addresses a plugin's request may be sent to. It stands apart because it is the one gate that must hold for
//! every spelling of every address, and because it does no I/O, so that a table and a property can show it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Decides about addresses: public ones pass, all others only inside a network that the host names.
///
/// "Public" is what the IANA special-purpose registries (RFC 6890 and its updates) leave as globally reachable, less
/// multicast, the reserved block 240.0.0.0/4, Azure's metadata address 168.63.129.16, which lies in public space, and
/// the tunnels whose addresses hide an IPv4 address. Of IPv6 only the block that is in use, 2000::/3, passes at all.
///
/// ```
/// use toolbay_http::AddressRules;
/// let mut rules = AddressRules::default();
/// assert!(rules.check("93.184.216.34".parse()?).is_ok());
/// assert!(rules.check("::ffff:169.254.169.254".parse()?).is_err());
/// rules.allow("10.1.0.0/16".parse()?);
/// assert!(rules.check("10.1.2.3".parse()?).is_ok());
/// assert!(rules.check("10.2.2.3".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    named: Vec<IpNet>,
}

/// An address that no plugin may reach. It names the address, so it is for the operator and never for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} is refused: {reason}")]
pub struct AddressRefused {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub reason: &'static str,
}

impl AddressRules {
    /// Opens a network to all plugins that have a grant for a host in it, whatever kind of network it is.
    ///
    /// An IPv4 network covers its addresses' IPv4-mapped IPv6 form (`::ffff:10.0.0.1`), which is another spelling of
    /// the same destination, and none of the forms that lead through a translator or a tunnel.
    pub fn allow(&mut self, network: IpNet) {
        self.named.push(network);
    }

    /// Gives the address to connect to: `address`, or the IPv4 address that it is another spelling of.
    ///
    /// # Errors
    /// [`AddressRefused`] where it is neither public nor in a network that the host named.
    pub fn check(&self, address: IpAddr) -> Result<IpAddr, AddressRefused> {
        let plain = address.to_canonical();
        if self.named.iter().any(|network| network.contains(&address) || network.contains(&plain)) {
            return Ok(plain);
        }
        let reason = match plain {
            IpAddr::V4(address) => refused_v4(address),
            IpAddr::V6(address) => refused_v6(address),
        };
        reason.map_or(Ok(plain), |reason| Err(AddressRefused { address, reason }))
    }
}

/// IPv4 blocks that no plugin reaches unless the host names them.
const REFUSED_V4: [(Ipv4Net, &str); 17] = [
    (v4([0, 0, 0, 0], 8), "this network, RFC 791"),
    (v4([10, 0, 0, 0], 8), "private, RFC 1918"),
    (v4([100, 64, 0, 0], 10), "shared with a carrier, RFC 6598; holds Alibaba's metadata address"),
    (v4([127, 0, 0, 0], 8), "loopback, RFC 1122"),
    (v4([168, 63, 129, 16], 32), "Azure's metadata address"),
    (v4([169, 254, 0, 0], 16), "link-local, RFC 3927; holds the metadata address of most clouds"),
    (v4([172, 16, 0, 0], 12), "private, RFC 1918"),
    (v4([192, 0, 0, 0], 24), "protocol assignments, RFC 6890; holds Oracle's metadata address"),
    (v4([192, 0, 2, 0], 24), "documentation, RFC 5737"),
    (v4([192, 88, 99, 0], 24), "6to4 relays, RFC 7526"),
    (v4([192, 168, 0, 0], 16), "private, RFC 1918"),
    (v4([198, 18, 0, 0], 15), "benchmarking, RFC 2544"),
    (v4([198, 51, 100, 0], 24), "documentation, RFC 5737"),
    (v4([203, 0, 113, 0], 24), "documentation, RFC 5737"),
    (v4([224, 0, 0, 0], 4), "multicast, RFC 5771"),
    (v4([255, 255, 255, 255], 32), "broadcast, RFC 919"),
    (v4([240, 0, 0, 0], 4), "reserved, RFC 1112"),
];

/// IPv6 blocks inside 2000::/3 that no plugin reaches unless the host names them.
const REFUSED_V6: [(Ipv6Net, &str); 5] = [
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "a Teredo tunnel, which hides an IPv4 address, RFC 4380"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments, RFC 2928"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation, RFC 3849"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a 6to4 tunnel, which hides an IPv4 address, RFC 3056"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation, RFC 9637"),
];

/// The block of IPv6 from which addresses are given out.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// The well-known prefix of translators (RFC 6052). On a network without IPv4 every public IPv4 host has such an
/// address, so these pass where the IPv4 address inside passes.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    REFUSED_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, reason)| *reason)
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return refused_v4(Ipv4Addr::new(a, b, c, d));
    }
    if !GLOBAL_UNICAST.contains(&address) {
        return Some("outside 2000::/3: loopback, link-local, unique-local, multicast, IPv4-compatible or not in use");
    }
    REFUSED_V6.iter().find(|(network, _)| network.contains(&address)).map(|(_, reason)| *reason)
}

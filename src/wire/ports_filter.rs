//! A filter for sockets by port, in the code that the kernel has for this purpose alone
//! (INET_DIAG_REQ_BYTECODE).

use std::collections::BTreeSet;

/// Local ports, by the family of the sockets that listen there.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// Of IPv4,
    pub v4: BTreeSet<u16>,
    /// and of IPv6, or both.
    pub v6: BTreeSet<u16>,
}

/// So many ports fit into one filter.
pub const MOST_PORTS: usize = 256;

/// Lets sockets pass whose own port is one of these, as an attribute of a question.
///
/// Its steps are conditional jumps forward, by so many bytes if the condition holds and so many if not;
/// to end exactly behind the last step is yes, to jump four bytes further is no. (A comparison for
/// equality there is only in younger kernels.)
pub(super) fn any_of(ports: &[u16]) -> Vec<u8> {
    const REQ_BYTECODE: u16 = 1;
    const JUMP: u8 = 1;
    const AT_LEAST: u8 = 2;
    const AT_MOST: u8 = 3;
    /// Two comparisons of two words each, and a jump.
    const BLOCK: u16 = 20;
    let ports = ports.get(..MOST_PORTS).unwrap_or(ports);
    let count = u16::try_from(ports.len()).unwrap_or(0);
    let mut code = Vec::new();
    let mut step = |what: u8, yes: u8, no: u16| {
        code.extend([what, yes]);
        code.extend(no.to_ne_bytes());
    };
    for (port, left) in ports.iter().zip((0..count).rev()) {
        step(AT_LEAST, 8, BLOCK);
        step(0, 0, *port);
        step(AT_MOST, 8, BLOCK - 8);
        step(0, 0, *port);
        // Behind all that is left, and the no at the end.
        step(JUMP, 4, 4 + left * BLOCK + 4);
    }
    step(JUMP, 4, 8);
    let len = u16::try_from(4 + code.len()).unwrap_or(0);
    [&len.to_ne_bytes()[..], &REQ_BYTECODE.to_ne_bytes(), &code].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::u16_at;

    /// What the kernel makes of it, for a socket of that port.
    fn passes(attr: &[u8], port: u16) -> bool {
        assert_eq!(u16_at(attr, 0).map(usize::from), Some(attr.len()));
        assert_eq!(u16_at(attr, 2), Some(1));
        let code = &attr[4..];
        let mut at = 0;
        while at < code.len() {
            let (no, word) = (u16_at(code, at + 2).unwrap(), u16_at(code, at + 6));
            let holds = match code[at] {
                1 => false,
                2 => port >= word.unwrap(),
                3 => port <= word.unwrap(),
                other => panic!("{other}"),
            };
            at += if holds {
                usize::from(code[at + 1])
            } else {
                usize::from(no)
            };
        }
        at == code.len()
    }

    #[test]
    fn these_ports_pass_and_no_other() {
        let many: Vec<u16> = (0..MOST_PORTS as u16).map(|n| n * 240 + 7).collect();
        for ports in [&[][..], &[3000], &[80, 3000], &[3000, 80, 443], &many] {
            let filter = any_of(ports);
            for port in (0..=u16::MAX).filter(|p| p % 240 < 9 || ports.contains(p)) {
                assert_eq!(passes(&filter, port), ports.contains(&port), "{port}");
            }
        }
        let more = [&many[..], &[1]].concat();
        assert_eq!(any_of(&more), any_of(&many));
    }
}

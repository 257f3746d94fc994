//! Against the kernel that the tests run on, and answers that it would not give.

use super::*;

#[test]
fn the_kernel_names_the_loopback_addresses() {
    let networks = Netlink::open().unwrap().local_addresses().unwrap();
    let loopback = (interface_index("lo").unwrap(), "127.0.0.1/8".parse().unwrap());
    assert!(networks.contains(&loopback), "{networks:?}");
}

#[test]
fn loopback_is_reached_over_loopback() {
    let mut netlink = Netlink::open().unwrap();
    let route = netlink.route_to("127.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(route.interface, interface_index("lo").unwrap());
    assert_eq!(route.gateway, None);
}

#[test]
fn errors_come_back_with_their_code() {
    let nowhere = Route {
        destination: "192.0.2.0/24".parse().unwrap(),
        gateway: None,
        interface: u32::MAX >> 1,
        metric: 0,
    };
    assert!(Netlink::open().unwrap().add_route(&nowhere).is_err());
    let error = interface_index("no-such-interface").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn truncated_answers_are_skipped() {
    let mut answer = [0_u8; 36];
    answer[0] = 36;
    for len in 0..answer.len() {
        assert!(!read_answers(&answer[..len], 1, false, &mut |_, _| {}).unwrap());
        assert!(read_address(&answer[..len]).is_none_or(|(_, net)| net.prefix_len() <= 128));
    }
}

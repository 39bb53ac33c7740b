//! Messages as they come and go: what is none, sizes, many at once, letter case.

use std::collections::HashSet;

use super::*;
use crate::dns::malformed::{self, Wanted};

#[tokio::test]
async fn what_is_no_query_of_ours_is_the_servers_to_judge_by_udp_and_tcp() {
    let server = local().await;
    let address = server.local_addr().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let bench = Bench::start(address);
    let client = bench.client().await;
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    let mut accepted = None;
    for (what, bytes, wanted) in malformed::queries() {
        client.send(&bytes).await.unwrap();
        send_tcp(&mut stream, &bytes).await;
        // The one among them that is a query, and of ours.
        if what == "a zone's transfer" {
            for said in [heard(&client).await, heard_tcp(&mut stream).await] {
                assert_eq!(Wanted::Code(code(&said)), wanted);
            }
            continue;
        }
        let mut buffer = [0; 512];
        let receiving = timeout(PATIENCE, server.recv_from(&mut buffer));
        let (length, from) = receiving.await.expect(what).unwrap();
        assert_eq!(&buffer[..length], bytes, "{what}");
        server.send_to(what.as_bytes(), from).await.unwrap();
        assert_eq!(heard(&client).await, what.as_bytes());

        if accepted.is_none() {
            let accepting = timeout(PATIENCE, listener.accept());
            accepted = Some(accepting.await.expect(what).unwrap().0);
        }
        let upstream = accepted.as_mut().unwrap();
        assert_eq!(heard_tcp(upstream).await, bytes, "{what}");
        send_tcp(upstream, what.as_bytes()).await;
        assert_eq!(heard_tcp(&mut stream).await, what.as_bytes());
    }
    // And we are still there.
    client.send(&query("shopify.dev.svc.")).await.unwrap();
    assert_eq!(code(&heard(&client).await), ResponseCode::NoError);
}

#[tokio::test]
async fn an_answer_is_cut_to_what_the_client_can_take_and_whole_by_tcp() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let mut plain = Message::from_vec(&query("many.dev.svc.")).unwrap();
    plain.edns = None;
    for (query, limit) in [
        (plain.to_vec().unwrap(), 512),
        (query("many.dev.svc."), 1232),
    ] {
        let bytes = bench.ask(&query).await;
        assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation && !answer.answers.is_empty());
        assert_eq!(answer.edns.is_some(), limit > 512);
        let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
        send_tcp(&mut stream, &query).await;
        let answer = Message::from_vec(&heard_tcp(&mut stream).await).unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 100);
    }
    silence(&server).await;
}

#[tokio::test]
async fn a_hundred_questions_at_once_on_one_connection_are_all_answered() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let bench = Bench::start(server.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        for _ in 0..50 {
            let mut answer = Message::from_vec(&heard_tcp(&mut stream).await).unwrap();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = ResponseCode::NXDomain;
            send_tcp(&mut stream, &answer.to_vec().unwrap()).await;
        }
    });
    let mut framed = Vec::new();
    for id in 0..100 {
        let name = ["shopify.dev.svc.", "www.example.org."][usize::from(id % 2)];
        let mut message = Message::from_vec(&query(name)).unwrap();
        message.metadata.id = id;
        let bytes = message.to_vec().unwrap();
        framed.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend(bytes);
    }
    let mut stream = TcpStream::connect(bench.tcp).await.unwrap();
    stream.write_all(&framed).await.unwrap();
    let mut ids = HashSet::new();
    for _ in 0..100 {
        let answer = Message::from_vec(&heard_tcp(&mut stream).await).unwrap();
        let id = answer.metadata.id;
        let wanted = [ResponseCode::NoError, ResponseCode::NXDomain][usize::from(id % 2)];
        assert_eq!(answer.metadata.response_code, wanted);
        ids.insert(id);
    }
    assert_eq!(ids.len(), 100);
    served.await.unwrap();
}

#[tokio::test]
async fn letter_case_is_as_it_was_asked() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    for name in [
        "ShOpIfY.dEv.SvC.",
        "NoBoDy.DEV.sVc.",
        "MaNy.dev.svc.CLUSTER.local.",
    ] {
        let answer = Message::from_vec(&bench.ask(&query(name)).await).unwrap();
        assert_eq!(answer.queries[0].name().to_ascii(), name);
        let mut answers = answer.answers.iter();
        assert!(
            answers.all(|record| record.name.to_ascii() == name),
            "{name}"
        );
    }
    silence(&server).await;
}

"""The one way out of a sandbox: a proxy in the server that connects to hosts the operator allows, and to no other.

```
command --TCP--> 127.0.0.1:3128 of its own network namespace --accepted by--> server --TCP--> checked address
```

The namespace has a loopback and nothing else, so that what is not carried here is not carried at all. The listener is
made inside and handed to the server over a unix socket pair that only that one command's start has (`guard/egress.py`);
hence each connection is known to be that command's, no socket lies in any folder, and no relay runs inside.

What is carried: `CONNECT host:port` for an allowed host, nothing else. TLS stays between the command and the host; only
the name it asks for, which is in clear text, is compared (`hello.py`), since many hosts share an address.

The host's name is looked up once, here. If any of its addresses is not one of the public internet the request is
refused, else one of exactly these addresses is connected to. So neither a name that points inwards nor one that answers
differently the second time (DNS rebinding) leads to this machine, its network or its cloud's metadata service.
"""

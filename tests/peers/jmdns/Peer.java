// Java's jmdns as a peer:
//
//   java -cp jmdns.jar:slf4j-api.jar Peer.java browse <address> <type>
//   java -cp jmdns.jar:slf4j-api.jar Peer.java publish <address> <name> <type> <port> <key>=<value>...
//
// It writes a line of JSON for each service that comes or goes. A type is `_http._tcp`; the address is this host's.

import java.net.InetAddress;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;
import javax.jmdns.JmDNS;
import javax.jmdns.ServiceEvent;
import javax.jmdns.ServiceInfo;
import javax.jmdns.ServiceListener;

public class Peer {
    public static void main(String[] words) throws Exception {
        JmDNS jmdns = JmDNS.create(InetAddress.getByName(words[1]), "jmdns-peer");
        if (words[0].equals("browse")) {
            jmdns.addServiceListener(words[2] + ".local.", new ServiceListener() {
                public void serviceAdded(ServiceEvent event) {
                    jmdns.requestServiceInfo(event.getType(), event.getName());
                }

                public void serviceResolved(ServiceEvent event) {
                    tell("added", event);
                }

                public void serviceRemoved(ServiceEvent event) {
                    tell("removed", event);
                }
            });
        } else {
            Map<String, String> txt = new LinkedHashMap<>();
            for (String pair : Arrays.copyOfRange(words, 5, words.length)) {
                String[] parts = pair.split("=", 2);
                txt.put(parts[0], parts[1]);
            }
            String type = words[3] + ".local.";
            jmdns.registerService(ServiceInfo.create(type, words[2], Integer.parseInt(words[4]), 0, 0, txt));
            System.out.println("{\"event\":\"ready\"}");
        }
        Thread.currentThread().join();
    }

    static void tell(String what, ServiceEvent event) {
        ServiceInfo info = event.getInfo();
        String addresses = Arrays.stream(info.getHostAddresses()).map(Peer::quoted).collect(Collectors.joining(","));
        String txt = Collections.list(info.getPropertyNames()).stream()
            .map(key -> quoted(key + "=" + info.getPropertyString(key)))
            .collect(Collectors.joining(","));
        System.out.println("{\"event\":\"" + what + "\",\"name\":" + quoted(event.getName())
            + ",\"port\":" + info.getPort() + ",\"addresses\":[" + addresses + "],\"txt\":[" + txt + "]}");
    }

    static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c < 0x20 || c == '"' || c == '\\') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}

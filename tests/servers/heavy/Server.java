import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * The JDK's own HTTP server, as it comes: java Server.java [PORT], else $PORT, else 8000.
 * What it does it tells, one line each, in the file $SAY.
 */
public class Server {
    private static final long PID = ProcessHandle.current().pid();

    private static void say(String event) throws IOException {
        String file = System.getenv("SAY");
        if (file != null && !file.isEmpty()) {
            Files.write(Path.of(file), (event + " " + PID + "\n").getBytes(StandardCharsets.UTF_8),
                    StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
    }

    public static void main(String[] args) throws IOException {
        String port = args.length > 0 ? args[0] : System.getenv().getOrDefault("PORT", "8000");
        String slot = System.getenv().getOrDefault("WORKER_ID", "-");
        byte[] body = ("PID " + PID + " SLOT " + slot + "\n").getBytes(StandardCharsets.UTF_8);
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(port)), 0);
        server.createContext("/", exchange -> {
            say("request");
            exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        say("listening");
    }
}

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.Executors;

/**
 * The JDK's own HTTP server, with a thread for each request: java Server.java [PORT], else $PORT, else 8000.
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

    private static void pause() {
        try {
            Thread.sleep(500);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
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
            if (exchange.getRequestURI().getPath().equals("/slow")) {
                pause();
            }
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        say("listening");
    }
}

import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBRequestHandler;
import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBServerHandler;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.handler.ContextHandler;

/**
 * DynamoDB Local in memory, on loopback alone: its own main class listens on every address, and sends telemetry.
 *
 * <p>java -cp 'lib/*' OnLoopback.java PORT
 */
public class OnLoopback {
  public static void main(String[] arguments) throws Exception {
    var inMemory = true;
    var sharedByAllKeysAndRegions = true;
    var delayedStatuses = true; // a new table is CREATING for a while, as on AWS
    var requests =
        new LocalDynamoDBRequestHandler(0, inMemory, null, sharedByAllKeysAndRegions, delayedStatuses);
    var context = new ContextHandler();
    context.setHandler(new LocalDynamoDBServerHandler(requests, null));
    var port = Integer.parseInt(arguments[0]);
    var server = new Server(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    server.setHandler(context);
    server.start();
    server.join();
  }
}

FROM debian:bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG GREETING="it's me"

RUN <<EOF
set -e
apt-get update
apt-get install -y --no-install-recommends nginx
EOF

RUN <<-SCRIPT
	#!/usr/bin/env python3
	print("it's", 1)
	END = 2
	SCRIPT

RUN cat <<A > /a && cat <<'B' > /b
one $GREETING
A
two $GREETING
B

COPY <<EOF /etc/greeting
${GREETING} says "hello" for \$1
EOF

COPY --chmod=0755 --chown=www-data <<'one.sh' <<"two.conf" notes.txt /opt/
#!/bin/sh
echo $GREETING
one.sh
server_name $host;
two.conf

SHELL ["/bin/sh", "-c"]
RUN echo $GREETING | tee /c
CMD nginx -g 'daemon off;'

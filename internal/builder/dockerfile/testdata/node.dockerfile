ARG NODE_VERSION=20
ARG BASE=node:${NODE_VERSION}-alpine

FROM ${BASE} AS deps
WORKDIR /app
COPY package.json package-lock.json* ./
RUN npm ci

FROM deps AS test
COPY . .
RUN --mount=type=bind,target=/x npm test

FROM ${BASE} AS Build
WORKDIR /app
COPY --from=deps /app/node_modules ./node_modules
COPY . .
ARG API_URL
ARG NODE_ENV=production
RUN npm run build

FROM ${BASE}
WORKDIR /app
ENV NODE_ENV=production PORT=3000
COPY --from=build --chown=node:node /app/dist ./dist
COPY --from=0 /app/package.json .
COPY --from=2 /app/node_modules /app/node_modules
USER node
EXPOSE $PORT
ENTRYPOINT ["node"]
CMD ["dist/server.js", "--port", "$PORT"]
